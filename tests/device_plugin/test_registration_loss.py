"""What ends a registration is noticed when the directory is read: new kubelet, lost socket, rival."""

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.observed import KubeletView
from biren_plugin.core.rivals import Sent
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.kubelet_folder import (
    KUBELET_SOCKET,
    KubeletFolder,
    read_kubelet_folder,
)
from biren_plugin.device_plugin.node import Node, OwnSocket, ResourceMemory
from biren_plugin.device_plugin.registration_loss import (
    DOUBT,
    TRY_INTERVAL,
    watch_kubelet,
    watch_rivals,
)
from biren_plugin.errors import KubeletRestarted, PluginSocketGone, RegistrationLost
from biren_plugin.unix_sockets import FileIdentity
from tests.support.cards import GPU, devices, listed
from tests.support.clocks import Gate, settled
from tests.support.daemon_states import new_state


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
def node(path: Path) -> Stage:
    return Stage(path)


async def test_a_new_kubelet_is_noticed_at_the_event(node: Stage, mock_clock: MockClock) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(KubeletRestarted):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await settled()
            new_file(node.kubelet)
            node.look()
            await settled()  # this clock stands: no look but that of the event
            pytest.fail("the event alone was not enough")


@pytest.mark.parametrize(
    ("change", "done"),
    [(Path.unlink, "deleted"), (new_file, "replaced; does another plugin use that name\\?")],
    ids=["deleted", "replaced"],
)
async def test_a_missing_own_socket_is_noticed_at_the_next_read(
    node: Stage, autojump_clock: MockClock, change: Callable[[Path], None], done: str
) -> None:
    new_file(node.kubelet)
    with pytest.RaisesGroup(pytest.RaisesExc(PluginSocketGone, match=f"plugin.sock was {done}$")):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.notice)
            await trio.sleep(100)
            change(node.socket)
            node.look()
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


async def test_a_socket_that_came_and_went_between_two_reads_is_noticed(
    node: Stage, autojump_clock: MockClock
) -> None:
    new_file(node.kubelet)
    node.look()
    parts = Node(node.socket.parent, node.folder, DaemonState())
    with pytest.RaisesGroup(PluginSocketGone):
        async with trio.open_nursery() as nursery:
            new_file(node.socket)
            there = FileIdentity.of(node.socket)
            assert there is not None
            nursery.start_soon(watch_kubelet, OwnSocket(node.socket, there), parts)
            await settled()
            node.socket.unlink()
            node.look()  # equal to the last one
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


async def test_sockets_that_cannot_be_read_for_a_while_count_as_unchanged(
    node: Stage, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_file(node.kubelet)

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    async with trio.open_nursery() as nursery:
        await nursery.start(node.notice)
        await settled()
        monkeypatch.setattr(Path, "stat", fail)
        node.look()
        await trio.sleep(100)
        assert nursery.child_tasks, "a socket that cannot be read counts as gone"
        nursery.cancel_scope.cancel()


async def test_a_hanging_disk_is_not_a_restart(
    node: Stage, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    new_file(node.kubelet)

    def hang(_path: Path, _unreadable: object = None) -> FileIdentity | None:
        gate.wait()
        return None

    async with trio.open_nursery() as nursery:
        await nursery.start(node.notice)
        await settled()
        monkeypatch.setattr(FileIdentity, "of", hang)
        node.folder.post(KubeletFolder())
        await trio.sleep(100)
        assert nursery.child_tasks, "a socket that cannot be read counts as gone"
        nursery.cancel_scope.cancel()
    gate.set()


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
            node.look()
            await trio.sleep(100)
            new_file(node.kubelet)
            node.look()
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
            node.look()
            await trio.sleep(60)
            nursery.cancel_scope.cancel()


class Asked:
    """A resource that another plugin may take, and until when the kubelet is asked often."""

    def __init__(self, path: Path) -> None:
        self.state = new_state(listed(GPU, *devices(GPU, 0)))
        self.node = Node(path, Board[KubeletFolder](), self.state)
        self.memory = ResourceMemory()
        self.sent = Board[Sent]()
        self.sent.post(Sent(listed(GPU, *devices(GPU, 0)), trio.current_time()))
        self.state.kubelet_view.post(KubeletView(trio.current_time()))

    async def watch(self) -> None:
        """Run the task under test."""
        await watch_rivals(GPU, self.node, self.memory, self.sent)

    @contextlib.contextmanager
    def rival(self) -> Iterator[socket.socket]:
        """Another plugin listens in the directory, which is read then."""
        with socket.socket(socket.AF_UNIX) as vendor:
            vendor.bind(str(self.node.path / "vendor.sock"))
            vendor.listen(1000)
            self.node.folder.post(read_kubelet_folder(self.node.path))
            yield vendor

    @property
    def asked_for(self) -> float:
        """Seconds from now on."""
        doubt = self.state.doubts.latest
        return doubt.until - trio.current_time() if doubt is not None else 0.0


@pytest.fixture
async def asked(path: Path) -> Asked:
    return Asked(path)


async def test_a_possible_rival_suspends_the_registration_until_the_kubelet_answers_or_it_has_gone(
    asked: Asked, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state, memory = asked.state, asked.memory
    memory.registered.post(True)

    async def expect_the_end() -> None:
        with pytest.raises(RegistrationLost, match="no process serves vendor"):
            await asked.watch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_the_end)
        await settled()
        with asked.rival():
            await trio.sleep(5)
            assert [memory.registered.latest] == [False]
            assert state.rivals[GPU].sockets == ("vendor.sock",)
            now = trio.current_time()
            state.kubelet_view.post(KubeletView(now, {}, {GPU: frozenset({"card_0"})}))
            await trio.sleep(5)
            assert [memory.registered.latest] == [True]
            assert not state.rivals
            state.kubelet_view.post(KubeletView(trio.current_time()))
            await trio.sleep(5)
            assert [memory.registered.latest] == [False]
    assert not state.rivals
    assert caplog.text.count("may have taken it") == 2
    assert caplog.text.count("no other plugin has taken it") == 1


async def test_the_kubelet_is_asked_often_after_a_registration_and_after_sockets_change(
    asked: Asked, autojump_clock: MockClock
) -> None:
    asked.memory.registered.post(True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.watch)
        await settled()
        assert asked.asked_for == DOUBT
        await trio.sleep(100)
        assert asked.asked_for < 0, "without a change the kubelet is left alone"
        with asked.rival():
            await settled()
            assert asked.asked_for == DOUBT
        nursery.cancel_scope.cancel()


async def test_the_kubelet_is_asked_often_once_its_answer_differs_from_the_list(
    asked: Asked, autojump_clock: MockClock
) -> None:
    asked.memory.registered.post(True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.watch)
        await trio.sleep(100)
        view = KubeletView(trio.current_time(), {}, {GPU: frozenset({"card_7"})})
        asked.state.kubelet_view.post(view)
        await settled()
        assert asked.asked_for == DOUBT
        nursery.cancel_scope.cancel()


async def test_the_kubelet_is_asked_often_while_there_is_a_rival(
    asked: Asked, autojump_clock: MockClock
) -> None:
    asked.memory.registered.post(True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.watch)
        await settled()
        with asked.rival():
            for _ in range(5):
                await trio.sleep(DOUBT)
                assert asked.state.rivals
                assert asked.asked_for > DOUBT - 2 * TRY_INTERVAL
        nursery.cancel_scope.cancel()


async def test_nothing_is_judged_before_the_registration(
    asked: Asked, autojump_clock: MockClock
) -> None:
    asked.memory.registered.post(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.watch)
        with asked.rival():
            await trio.sleep(60)
            assert (asked.state.rivals, asked.state.doubts.latest) == ({}, None)
        nursery.cancel_scope.cancel()
