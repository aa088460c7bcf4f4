"""The state of the kubelet's directory is posted, and missing parts are logged once."""

import errno
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.device_plugin import kubelet_folder
from biren_plugin.device_plugin.kubelet_folder import (
    KUBELET_SOCKET,
    KubeletFolder,
    read_kubelet_folder,
    remove_abandoned,
    watch_kubelet_folder,
)
from biren_plugin.host import folder_events
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.unix_sockets import FileIdentity
from tests.support.clocks import Gate
from tests.support.stepped_events import SteppedEvents


@pytest.fixture
def path(short_path: Path) -> Path:
    """The kubelet's directory, which does not exist yet."""
    return short_path / "plugins"


@pytest.fixture
def board() -> Board[KubeletFolder]:
    return Board[KubeletFolder]()


@pytest.fixture
async def bell(path: Path, board: Board[KubeletFolder]) -> AsyncIterator[SteppedEvents]:
    """Wakes a watcher that posts on `board` and has found no directory so far."""
    bell = SteppedEvents()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_kubelet_folder, path, bell, board)
        await bell.asleep.wait()
        yield bell
        nursery.cancel_scope.cancel()


def listen(path: Path) -> None:
    """Create a socket file, as left behind by a process."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_missing_directory_differs_from_an_empty_one(path: Path) -> None:
    assert read_kubelet_folder(path) == KubeletFolder()
    path.mkdir()
    found = read_kubelet_folder(path)
    assert found.exists
    assert not found.sockets


def test_a_file_in_place_of_the_directory_counts_as_missing(path: Path) -> None:
    path.touch()
    assert not read_kubelet_folder(path).exists


def test_only_names_of_sockets_count(path: Path) -> None:
    path.mkdir()
    for name in ("kubelet.sock", "biren-gpu.sock"):
        listen(path / name)
    (path / "kubelet_internal_checkpoint").touch()
    (path / "gone.sock").symlink_to("nowhere")
    seen = read_kubelet_folder(path)
    assert seen.sockets.keys() == {"kubelet.sock", "biren-gpu.sock"}
    assert seen.kubelet == seen.sockets["kubelet.sock"]


def test_a_new_socket_with_the_same_name_is_another_kubelet(path: Path) -> None:
    path.mkdir()
    socket_path = path / KUBELET_SOCKET
    listen(socket_path)
    before = read_kubelet_folder(path)
    assert read_kubelet_folder(path) == before
    socket_path.unlink()
    listen(socket_path)
    assert read_kubelet_folder(path).kubelet not in (None, before.kubelet)


async def test_each_read_is_a_turn_of_the_loop_with_its_seconds(
    path: Path, board: Board[KubeletFolder], autojump_clock: MockClock
) -> None:
    bell, turns = SteppedEvents(), list[float]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_kubelet_folder, path, bell, board, None, turns.append)
        await bell.asleep.wait()
        await trio.sleep(100)
        await bell.ring()
        nursery.cancel_scope.cancel()
    assert turns == [0.0, 0.0], "on the mock clock, a read takes no time"


async def test_the_directory_is_posted_after_each_read(
    path: Path, board: Board[KubeletFolder], bell: SteppedEvents
) -> None:
    with board.subscribe() as posted:
        assert posted.receive_nowait() == KubeletFolder()
        path.mkdir()
        listen(path / KUBELET_SOCKET)
        await bell.ring()
        assert posted.receive_nowait().kubelet is not None
        await bell.ring()
        assert posted.receive_nowait().kubelet is not None, "what came and went leaves it equal"
        listen(path / "biren-gpu.sock")
        await bell.ring()
        assert posted.receive_nowait().sockets.keys() == {KUBELET_SOCKET, "biren-gpu.sock"}
        (path / KUBELET_SOCKET).unlink()
        await bell.ring()
        assert posted.receive_nowait().kubelet is None


@pytest.mark.parametrize(("is_watched", "reads"), [(True, 1), (False, 10)])
async def test_a_directory_without_events_is_read_more_often(
    path: Path,
    board: Board[KubeletFolder],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    is_watched: bool,
    reads: int,
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    if not is_watched:
        monkeypatch.setattr(folder_events, "INotify", exhausted)
    path.mkdir()
    turns: list[float] = []
    with FolderEvents([path]) as events, trio.move_on_after(10):
        await watch_kubelet_folder(path, events, board, on_turn=turns.append)
    assert len(turns) == reads


async def test_events_are_armed_before_each_scan(bell: SteppedEvents) -> None:
    assert bell.armed == 1
    await bell.ring()
    await bell.ring()
    assert bell.armed == 3


async def test_a_missing_directory_is_logged_once_with_advice(
    path: Path, bell: SteppedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await bell.ring()
    [text] = warnings(caplog)
    assert text == f"waiting for {path}: no such directory; is it mounted into the container?"


async def test_a_directory_that_cannot_be_read_is_logged_once_with_the_reason(
    path: Path,
    bell: SteppedEvents,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unreadable = KubeletFolder(trouble="Input/output error")
    monkeypatch.setattr(kubelet_folder, "read_kubelet_folder", lambda _path: unreadable)
    for _ in range(3):
        await bell.ring()
    assert warnings(caplog)[-1:] == [f"waiting for {path}: Input/output error"]
    assert len([text for text in warnings(caplog) if "Input/output" in text]) == 1


async def test_a_read_that_hangs_holds_up_no_other_task_and_is_logged_once(
    path: Path,
    board: Board[KubeletFolder],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    seen = KubeletFolder(exists=True, sockets={KUBELET_SOCKET: FileIdentity(1, 2, 3)})

    def hang(_path: Path) -> KubeletFolder:
        gate.wait()
        return seen

    monkeypatch.setattr(kubelet_folder, "read_kubelet_folder", hang)
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_kubelet_folder, path, SteppedEvents(), board)
        await trio.sleep(20)  # other tasks go on
        [text] = warnings(caplog)
        assert text.endswith("takes more than 5 s, as when a disk hangs; see `dmesg` on the node")
        gate.set()
        await board.wait_for(lambda latest: latest == seen)
        assert "the kubelet's socket is there" in warnings(caplog)[-1]
        nursery.cancel_scope.cancel()


async def test_a_missing_kubelet_is_logged_once_whatever_else_changes(
    path: Path, bell: SteppedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    await bell.ring()
    listen(path / "other.sock")
    await bell.ring()
    assert warnings(caplog)[1:] == [f"waiting for the kubelet: no {path}/kubelet.sock"]


async def test_each_new_wait_is_logged_again_and_its_end_but_for_a_restart(
    path: Path, bell: SteppedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path.mkdir()
    await bell.ring()
    listen(path / KUBELET_SOCKET)
    await bell.ring()
    (path / KUBELET_SOCKET).unlink()
    await bell.ring()
    await bell.ring()  # a kubelet that restarts would be back
    path.rmdir()
    await bell.ring()
    folder = f"waiting for {path}: no such directory; is it mounted into the container?"
    kubelet = f"waiting for the kubelet: no {path}/kubelet.sock"
    found = f"the kubelet's socket is there: {path}/kubelet.sock"
    assert caplog.messages == [folder, kubelet, found, kubelet, folder]
    path.mkdir()
    listen(path / KUBELET_SOCKET)
    await bell.ring()
    assert caplog.messages[5:] == ["the kubelet has restarted"]


def test_only_a_killed_daemons_own_sockets_are_removed(path: Path) -> None:
    path.mkdir()
    ours, foreign, kubelet = "birentech.com-1-2-gpu.sock", "vendor.sock", KUBELET_SOCKET
    for name in (ours, foreign, kubelet):
        listen(path / name)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path / "birentech.com-gpu.sock"))
        served.listen()
        assert remove_abandoned(path) == [ours]
    left = {each.name for each in path.iterdir()}
    assert left == {"birentech.com-gpu.sock", foreign, kubelet}


def test_a_missing_directory_has_no_abandoned_socket(path: Path) -> None:
    assert remove_abandoned(path) == []


async def test_a_new_kubelet_is_one_line_and_its_absence_in_between_none(
    path: Path, bell: SteppedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path.mkdir()
    listen(path / KUBELET_SOCKET)
    await bell.ring()
    caplog.clear()
    (path / KUBELET_SOCKET).unlink()
    await bell.ring()
    listen(path / KUBELET_SOCKET)
    for _ in range(3):
        await bell.ring()
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "the kubelet has restarted")
    ]


async def test_a_directory_that_cannot_be_read_for_a_while_keeps_its_sockets(
    path: Path,
    board: Board[KubeletFolder],
    bell: SteppedEvents,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path.mkdir()
    listen(path / KUBELET_SOCKET)
    await bell.ring()
    before = board.latest
    assert before is not None
    assert before.kubelet is not None
    with monkeypatch.context() as during:
        unreadable = KubeletFolder(trouble="Input/output error")
        during.setattr(kubelet_folder, "read_kubelet_folder", lambda _path: unreadable)
        await bell.ring()
        assert board.latest == attrs.evolve(before, trouble="Input/output error")
    assert warnings(caplog)[-1] == f"waiting for {path}: Input/output error"
    await bell.ring()
    assert board.latest == before
