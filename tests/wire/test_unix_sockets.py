"""Only root and our own user get through a socket, and only our own file is ever removed.

The sockets are real, and their calls return at once; a disk hangs only at a closed `Gate`.
"""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin import unix_sockets
from biren_plugin.unix_sockets import (
    GOODBYE,
    FileIdentity,
    UnixListener,
    connect,
    connect_at_once,
    is_abandoned,
    is_served,
    listen,
    peer_uid,
)
from biren_plugin.worker_thread import WorkerThread
from tests.support.clocks import Gate, settled

DEADLINE = 10.0  # real seconds, against a hang; nothing takes any


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plugin.sock"


async def test_the_socket_is_its_owners_alone(path: Path) -> None:
    async with UnixListener(path):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


async def test_bytes_pass_both_ways(path: Path) -> None:
    with trio.fail_after(DEADLINE):
        async with (
            UnixListener(path) as listener,
            await trio.open_unix_socket(path) as there,
            await listener.accept() as here,
        ):
            await there.send_all(b"ping")
            assert await here.receive_some() == b"ping"
            await here.send_all(b"pong")
            assert await there.receive_some() == b"pong"
            assert peer_uid(here) == os.getuid()


@pytest.mark.parametrize(("uid", "may"), [(0, True), (os.getuid(), True), (12345, False)])
async def test_only_root_and_our_own_user_may_connect(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    uid: int,
    *,
    may: bool,
) -> None:
    # What the kernel says cannot be faked without being root, so its answer is replaced.
    uids = iter([uid, os.getuid()])
    monkeypatch.setattr(unix_sockets, "peer_uid", lambda _stream: next(uids))
    with trio.fail_after(DEADLINE):
        async with (
            UnixListener(path) as listener,
            await trio.open_unix_socket(path) as first,
            await trio.open_unix_socket(path) as second,
            await listener.accept() as accepted,
        ):
            await accepted.send_all(b"hello")
            assert await (first if may else second).receive_some() == b"hello"
            if not may:
                assert await first.receive_some() == b"", "closed at once"
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == ([] if may else ["refused a connection to plugin.sock from user id 12345"])


async def test_refusal_names_the_user_namespace_that_hides_the_hosts_root(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "uid_map").write_text("         0     100000      65536\n")
    monkeypatch.setattr(unix_sockets, "_UID_MAP", tmp_path / "uid_map")
    uids = iter([65534, os.getuid()])
    monkeypatch.setattr(unix_sockets, "peer_uid", lambda _stream: next(uids))
    with trio.fail_after(DEADLINE):
        async with (
            UnixListener(path) as listener,
            await trio.open_unix_socket(path),
            await trio.open_unix_socket(path),
            await listener.accept(),
        ):
            pass
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.startswith("refused a connection to plugin.sock from user id 65534, as a user")
    assert "remove hostUsers: false" in warning


async def test_closing_removes_the_file(path: Path) -> None:
    async with UnixListener(path):
        assert path.exists()
    assert not path.exists()


async def test_a_cancelled_close_still_removes_the_file(path: Path) -> None:
    with trio.CancelScope() as scope:
        async with UnixListener(path):
            scope.cancel()
    assert not path.exists()


async def test_closing_leaves_a_file_that_took_its_place(path: Path) -> None:
    async with UnixListener(path):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


async def test_closing_leaves_a_successors_socket_alone(path: Path) -> None:
    old = UnixListener(path)
    async with UnixListener(path) as new:
        assert new.identity != old.identity
        await old.aclose()
        assert FileIdentity.of(path) == new.identity
        with trio.fail_after(DEADLINE):
            async with await trio.open_unix_socket(path), await new.accept():
                pass


async def test_closing_is_not_an_error_when_the_directory_has_gone(tmp_path: Path) -> None:
    folder = tmp_path / "device-plugins"
    folder.mkdir()
    async with UnixListener(folder / "plugin.sock"):
        (folder / "plugin.sock").unlink()
        folder.rmdir()


async def test_a_socket_that_a_dead_process_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with UnixListener(path):
        with trio.fail_after(DEADLINE):
            async with await trio.open_unix_socket(path):
                pass


@pytest.mark.parametrize("name", ["missing/plugin.sock", "x" * 120])
def test_a_path_that_cannot_be_listened_on_is_an_os_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"No such file|too long"):
        UnixListener(tmp_path / name)


def test_a_directory_in_its_place_is_an_os_error_and_stays(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        UnixListener(path)
    assert path.is_dir()


def test_a_recreated_file_has_another_identity(path: Path) -> None:
    assert FileIdentity.of(path) is None
    path.touch()
    first = FileIdentity.of(path)
    assert first == FileIdentity.of(path)
    # Kept under another name, so that its inode cannot be given out again.
    path.rename(path.with_name("kept"))
    path.touch()
    assert FileIdentity.of(path) not in (None, first)


def test_an_inaccessible_file_has_no_identity(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert FileIdentity.of(tmp_path / "file" / "below") is None


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A disk that hangs while the gate is closed: no file can be looked up."""
    gate, look_up = Gate(), FileIdentity.of

    def hang(path: Path) -> FileIdentity | None:
        gate.wait()
        return look_up(path)

    gate.set()
    monkeypatch.setattr(FileIdentity, "of", hang)
    yield gate
    gate.set()


async def test_a_listener_that_cannot_be_created_in_time_leaves_nothing(
    path: Path, gate: Gate, autojump_clock: MockClock
) -> None:
    gate.clear()
    with pytest.raises(TimeoutError, match="as when a disk hangs"):
        await listen(path, WorkerThread())
    gate.set()
    await settled()
    assert not path.exists()


async def test_a_listener_closes_though_its_disk_hangs(
    path: Path, gate: Gate, autojump_clock: MockClock
) -> None:
    thread = WorkerThread()
    old = await listen(path, thread)
    gate.clear()
    began = trio.current_time()
    with trio.CancelScope() as scope:
        scope.cancel()
        await old.aclose()
    assert trio.current_time() - began == GOODBYE
    with pytest.raises(ConnectionRefusedError):
        connect_at_once(path)
    gate.set()
    async with await listen(path, thread):
        await settled()
        assert path.exists(), "the late removal hit the new file"


async def test_a_server_whose_queue_is_full_serves_and_takes_no_connection(path: Path) -> None:
    thread = WorkerThread()
    with socket.socket(socket.AF_UNIX) as stopped, contextlib.ExitStack() as waiting:
        stopped.bind(str(path))
        stopped.listen(0)
        for _ in range(3):  # until the queue is full
            with contextlib.suppress(BlockingIOError):
                waiting.enter_context(connect_at_once(path))
        with pytest.raises(BlockingIOError):
            await connect(path, thread)
        assert await is_served(path, thread)
        assert not is_abandoned(path)
    assert not await is_served(path, thread)
    assert is_abandoned(path)
