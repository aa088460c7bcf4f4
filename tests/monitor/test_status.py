"""The status socket: which clients get through, what a crowd costs, and which daemon owns it."""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.commands import show_status
from biren_plugin.commands.show_status import ask
from biren_plugin.core.rivals import Rival
from biren_plugin.core.setting_field import STATUS_SOCKET
from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import SocketUnusable, StatusUnavailable
from biren_plugin.monitor import status
from biren_plugin.monitor.status import CONNECTIONS, DEADLINE, LOOK_INTERVAL, serve_status
from tests.support.cards import GPU, devices, listed
from tests.support.clocks import jump, patience, settled
from tests.support.daemon_states import new_state, register


@pytest.fixture
def folder(short_path: Path) -> Path:
    """The socket's directory, which does not exist yet."""
    return short_path / "status"


@pytest.fixture
def fast_clock() -> MockClock:
    """Sockets are real, so time cannot jump: it runs twenty times as fast."""
    return MockClock(rate=20)


@pytest.fixture
async def state() -> DaemonState:
    return new_state(listed(GPU, *devices(GPU, 0)))


async def told(folder: Path) -> dict[str, Any]:
    return await trio.to_thread.run_sync(ask, folder)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(patience()):
        while not holds():  # noqa: ASYNC110 - files set no event
            await trio.sleep(0.1)  # on a clock that runs twenty times as fast


@contextlib.asynccontextmanager
async def serving(folder: Path, state: DaemonState) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        before = identity(folder)
        nursery.start_soon(serve_status, folder, state)
        await until(lambda: identity(folder) not in (None, before))
        yield
        nursery.cancel_scope.cancel()


def identity(folder: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        status = (folder / STATUS_SOCKET).stat()
        return status.st_ino, status.st_mtime_ns
    return None


async def test_only_the_owner_can_use_the_socket(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    async with serving(folder, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / STATUS_SOCKET).stat().st_mode) == 0o600
        assert (await told(folder))["role"] == "serving"
    assert not (folder / STATUS_SOCKET).exists()


async def test_an_empty_directory_is_closed_to_others_and_a_shared_one_keeps_its_mode(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    folder.mkdir(mode=0o755)
    async with serving(folder, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    (folder / "another's file").touch()
    async with serving(folder, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert stat.S_IMODE((folder / STATUS_SOCKET).stat().st_mode) == 0o600


async def test_a_newer_daemon_takes_the_socket_over_and_the_olders_end_leaves_it(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    newer = new_state()
    newer.role = "standing by"
    older_life = trio.CancelScope()

    async def older() -> None:
        with older_life:
            await serve_status(folder, state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(older)
        await until(lambda: identity(folder) is not None)
        assert (await told(folder))["role"] == "serving"
        async with serving(folder, newer):
            assert (await told(folder))["role"] == "standing by"
            await trio.sleep(5 * LOOK_INTERVAL)
            assert (await told(folder))["role"] == "standing by", "the older does not fight for it"
            older_life.cancel()
            await settled()
            assert (await told(folder))["role"] == "standing by"


async def test_an_older_daemon_listens_again_when_the_newer_one_has_gone(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    async with serving(folder, state):
        async with serving(folder, new_state()):
            pass
        assert identity(folder) is None
        await until(lambda: identity(folder) is not None)
        assert (await told(folder))["resources"]


async def test_an_older_daemon_takes_the_place_of_a_killed_one(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    async with serving(folder, state):
        (folder / STATUS_SOCKET).unlink()
        killed = trio.socket.socket(trio.socket.AF_UNIX)
        await killed.bind(str(folder / STATUS_SOCKET))
        killed.close()  # the file stays
        left = identity(folder)
        await until(lambda: identity(folder) not in (None, left))
        assert (await told(folder))["resources"]


async def test_a_crowd_that_does_not_read_is_bounded_and_disconnected(
    folder: Path, state: DaemonState, fast_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than a socket's buffer holds, so that the writing waits for the reader.
    monkeypatch.setattr(status, "status_document", lambda _state: "x" * 2**19)
    async with serving(folder, state), contextlib.AsyncExitStack() as crowd:
        fast_clock.rate = 0.0
        for _ in range(CONNECTIONS):
            one = await crowd.enter_async_context(
                await trio.open_unix_socket(folder / STATUS_SOCKET)
            )
            assert await one.receive_some(1) != b""
        async with await trio.open_unix_socket(folder / STATUS_SOCKET) as late:
            assert await late.receive_some() == b"", "no room"
        await jump(fast_clock, DEADLINE)
        await settled()
        async with await trio.open_unix_socket(folder / STATUS_SOCKET) as later:
            assert await later.receive_some() != b""


async def test_a_directory_that_cannot_be_created_is_an_error_of_one_line(
    folder: Path, state: DaemonState
) -> None:
    folder.write_text("a file in its place")
    with pytest.raises(
        SocketUnusable, match=r"`status` cannot be answered: .*correct --status-dir"
    ):
        await serve_status(folder, state)


async def test_a_misspelt_directory_is_not_created_with_its_parents(
    folder: Path, state: DaemonState
) -> None:
    why = f"create {folder / 'typo'}, or correct --status-dir"
    with pytest.raises(SocketUnusable, match=why):
        await serve_status(folder / "typo", state)
    assert not folder.exists()


async def test_a_file_in_place_of_the_directory_is_named(folder: Path, state: DaemonState) -> None:
    folder.touch()
    with pytest.raises(SocketUnusable, match=f"{folder} is not a directory, correct --status-dir"):
        await serve_status(folder, state)


def test_without_a_daemon_one_line_gives_advice(folder: Path) -> None:
    with pytest.raises(StatusUnavailable, match="no daemon runs here: no process serves"):
        ask(folder)


def test_only_root_may_ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root, who runs the tests in CI, is never refused: the refusal is what connect() would raise.
    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("biren_plugin.commands.show_status.socket.socket.connect", refuse)
    with pytest.raises(StatusUnavailable, match="only root may ask the daemon; try with sudo"):
        ask(folder)


def test_a_disk_that_hangs_below_the_socket_is_reported_in_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def hang(*_arguments: object) -> None:
        gate.wait()

    monkeypatch.setattr(show_status, "OPEN_DEADLINE", 0.05)
    monkeypatch.setattr("biren_plugin.commands.show_status.socket.socket.connect", hang)
    with pytest.raises(StatusUnavailable, match=f"opening {folder}/.* as when a disk hangs; see"):
        ask(folder)
    gate.set()


def listening(folder: Path) -> socket.socket:
    """A daemon that accepts nothing: this process listens."""
    folder.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / STATUS_SOCKET))
    listener.listen(0)
    return listener


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("T", "process PID is stopped .*; continue it with `kill -CONT PID`$"),
        ("D", "process PID waits for a disk or a driver; see `dmesg` on the node$"),
        ("S", "process PID is starting, hung, or starved of CPU; see its log"),
        ("", "it is stopped or hung; see its log, and restart its pod$"),
    ],
)
def test_a_daemon_that_does_not_answer_is_named_with_its_state_and_the_cure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, says: str
) -> None:
    monkeypatch.setattr(show_status, "ANSWER_DEADLINE", 0.05)
    monkeypatch.setattr(show_status, "_PROC", tmp_path / "proc")
    says = says.replace("PID", f"{os.getpid()}")
    if state:
        (tmp_path / f"proc/{os.getpid()}").mkdir(parents=True)
        (tmp_path / f"proc/{os.getpid()}/stat").write_text(f"1 (a (daemon) b) {state} 1 2")
    with listening(folder), pytest.raises(StatusUnavailable, match=f"did not answer in .*{says}"):
        ask(folder)


def test_a_daemon_whose_queue_of_callers_is_full_is_hung_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show_status, "ANSWER_DEADLINE", 0.05)
    with listening(folder), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(folder / STATUS_SOCKET))
        with pytest.raises(StatusUnavailable, match="it is stopped or hung"):
            ask(folder)


async def test_a_daemon_of_another_version_is_named_instead_of_a_traceback(folder: Path) -> None:
    folder.mkdir()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b'{"version": "0.0.9", "pid": 1}')

    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(folder / STATUS_SOCKET))
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listener)])
            with pytest.raises(
                StatusUnavailable, match=r"version 0\.0\.9 does not report claims, dra"
            ):
                await trio.to_thread.run_sync(ask, folder)
            nursery.cancel_scope.cancel()


def test_a_path_that_no_socket_can_have_is_one_line(folder: Path) -> None:
    with pytest.raises(StatusUnavailable, match="too long; see --status-dir"):
        ask(folder / ("x" * 200))


async def test_a_daemon_that_breaks_off_causes_no_traceback(folder: Path) -> None:
    folder.mkdir()
    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(folder / STATUS_SOCKET))
        listener.listen()

        async def break_off() -> None:
            connection, _ = await listener.accept()
            await connection.send(b'{"version": ')
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_off)
            with pytest.raises(StatusUnavailable, match="did not answer"):
                await trio.to_thread.run_sync(ask, folder)


async def test_a_bug_in_the_status_is_logged_and_the_next_request_answered(
    folder: Path,
    state: DaemonState,
    fast_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(folder, state):
        with monkeypatch.context() as patched:
            patched.setattr(status, "status_document", lambda _state: 1 / 0)
            with pytest.raises(StatusUnavailable, match="did not answer"):
                await told(folder)
        assert "ZeroDivisionError" in caplog.text
        assert (await told(folder))["role"] == "serving"


async def test_a_file_name_that_is_not_utf8_costs_no_status(
    folder: Path, state: DaemonState, fast_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    register(state, GPU, taken=False)
    state.rivals[GPU] = Rival(("biren\udcff\x1b[31m\n.sock",), "its name")
    async with serving(folder, state):
        await trio.to_thread.run_sync(
            partial(show_status.show_status, folder, as_json=False, watch=False)
        )
    [line] = [each for each in capsys.readouterr().out.splitlines() if each.startswith("! ")]
    assert "biren\\udcff\\x1b[31m\\n.sock" in line
