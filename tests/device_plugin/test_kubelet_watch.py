"""A new kubelet, or a missing own socket, is noticed by an event, or by polling at the latest."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.folder import KUBELET_SOCKET, KubeletFolder, read_kubelet_folder
from biren_plugin.device_plugin.kubelet_watch import watch_kubelet
from biren_plugin.device_plugin.node import Node, OwnSocket
from biren_plugin.errors import KubeletRestarted, PluginSocketGone
from biren_plugin.unix_sockets import FileIdentity


class Stage:
    """A kubelet's directory; its sockets are plain files, because nothing connects to them here."""

    def __init__(self, path: Path) -> None:
        self.kubelet = path / KUBELET_SOCKET
        self.socket = path / "plugin.sock"
        self.folder = Board[KubeletFolder]()

    def look(self) -> None:
        """Post the directory's content, as the daemon's watcher does after an event."""
        self.folder.post(read_kubelet_folder(self.socket.parent))

    async def notice(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the task under test, with an existing own socket."""
        self.socket.touch()
        identity = FileIdentity.of(self.socket)
        assert identity is not None
        self.look()
        task_status.started()
        node = Node(self.socket.parent, self.folder, DaemonState())
        await watch_kubelet(OwnSocket(self.socket, identity), node)


def new_file(path: Path) -> None:
    """Another file under the same name."""
    fresh = path.with_suffix(".new")
    fresh.touch()
    fresh.replace(path)


@pytest.fixture
def node() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="br") as path:
        yield Stage(Path(path))


async def test_a_new_kubelet_is_noticed_at_the_event(node: Stage, mock_clock: MockClock) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await wait_all_tasks_blocked()
            new_file(node.kubelet)
            node.look()
            await wait_all_tasks_blocked()  # this clock stands: no look but that of the event
            pytest.fail("the event alone was not enough")


async def test_a_new_kubelet_is_noticed_by_polling(node: Stage, autojump_clock: MockClock) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await trio.sleep(100)
            new_file(node.kubelet)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("change", [Path.unlink, new_file], ids=["deleted", "replaced"])
async def test_a_missing_own_socket_is_noticed_by_polling(
    node: Stage, autojump_clock: MockClock, change: Callable[[Path], None]
) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(PluginSocketGone):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await trio.sleep(100)
            change(node.socket)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


async def test_neither_the_first_kubelet_nor_its_stop_is_a_restart(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(node.notice)
        await trio.sleep(100)
        new_file(node.kubelet)
        node.look()
        await trio.sleep(100)
        node.kubelet.unlink()
        node.look()
        await trio.sleep(100)
        nursery.cancel_scope.cancel()


async def test_a_kubelet_that_follows_a_stopped_one_is_a_restart(
    node: Stage, autojump_clock: MockClock
) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await trio.sleep(100)
            node.kubelet.unlink()
            await trio.sleep(100)
            new_file(node.kubelet)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


async def test_a_directory_emptied_by_a_starting_kubelet_is_a_restart(
    node: Stage, autojump_clock: MockClock
) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await trio.sleep(100)
            node.kubelet.unlink()
            node.socket.unlink()
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
