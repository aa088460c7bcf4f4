"""The daemon's status over its socket: who gets it, what it says, and whose the socket is."""

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.core.model import Device
from biren_plugin.core.observed import Holder
from biren_plugin.errors import SocketUnusable, StatusUnavailable
from biren_plugin.operate import status_socket, status_view
from biren_plugin.operate.daemon_state import DaemonState
from biren_plugin.operate.status import SOCKET, status_document
from biren_plugin.operate.status_socket import CONNECTIONS, DEADLINE, LOOK_INTERVAL, serve_status
from biren_plugin.operate.status_view import ask, show_status
from tests.cards import GPU, card, devices, listed
from tests.daemon_states import hold, new_state, observe, register

SCHEMA = Path(__file__).parents[1] / "schema/status.schema.json"
SICK = Device(card(1, 7, address="0000:3b:00.0"), GPU, ("it is hot",))
TRAIN = {(GPU, "card_0"): Holder("default", "train", "main")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for sockets; the folder of the socket is not there yet."""
    with tempfile.TemporaryDirectory(prefix="br") as path:
        yield Path(path) / "status"


@pytest.fixture
def fast_clock() -> MockClock:
    """Sockets are real, so time cannot jump: it runs twenty times as fast."""
    return MockClock(rate=20)


@pytest.fixture
async def state() -> DaemonState:
    state = new_state(listed(GPU, *devices(GPU, 0), SICK))
    observe(state, holders=TRAIN)
    return state


def check(document: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


async def told(folder: Path) -> dict[str, Any]:
    return await trio.to_thread.run_sync(ask, folder)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(60):
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
        status = (folder / SOCKET).stat()
        return status.st_ino, status.st_mtime_ns
    return None


async def test_document_tells_each_card_its_health_since_when_and_who_has_it(
    state: DaemonState,
) -> None:
    document = status_document(state)
    check(document)
    (gpus,) = document["resources"]
    assert gpus["registered"] is True
    well, sick = gpus["devices"]
    assert well["healthy"] is True
    assert well["holder"] == {"namespace": "default", "pod": "train", "container": "main"}
    assert sick == {
        "card": "card_1",
        "healthy": False,
        "since": "2023-11-14T22:13:20Z",
        "reasons": ["it is hot"],
        "warnings": [],
        "physical_gpu": 7,
        "pci_address": "0000:3b:00.0",
        "numa_node": None,
        "holder": None,
    }


async def test_problems_are_what_is_stuck_what_is_to_come_and_what_is_distrusted(
    state: DaemonState,
) -> None:
    register(state, GPU, taken=False)
    document = status_document(state)
    check(document)
    assert document["problems"] == [f"{GPU}: not registered with the kubelet"]


async def test_daemon_that_knows_nothing_yet_says_so() -> None:
    state = new_state()
    document = status_document(state)
    check(document)
    assert document["holders_known"] is False
    assert document["resources"] == []


async def test_socket_is_its_owners_alone(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    async with serving(folder, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / SOCKET).stat().st_mode) == 0o600
        check(await told(folder))
    assert not (folder / SOCKET).exists()


async def test_mounted_folder_is_closed_to_others_and_a_folder_of_others_is_left_as_it_is(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    folder.mkdir(mode=0o755)
    async with serving(folder, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    (folder / "another's file").touch()
    async with serving(folder, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert stat.S_IMODE((folder / SOCKET).stat().st_mode) == 0o600


async def test_newer_daemon_takes_the_socket_over_and_the_olders_end_leaves_it(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    newer = new_state()
    newer.stand_by()
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
            await wait_all_tasks_blocked()
            assert (await told(folder))["role"] == "standing by"


async def test_older_daemon_listens_again_when_the_newer_one_has_gone(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    async with serving(folder, state):
        async with serving(folder, new_state()):
            pass
        assert identity(folder) is None
        await until(lambda: identity(folder) is not None)
        assert (await told(folder))["resources"]


async def test_older_daemon_takes_the_place_of_one_that_was_killed(
    folder: Path, state: DaemonState, fast_clock: MockClock
) -> None:
    async with serving(folder, state):
        (folder / SOCKET).unlink()
        killed = trio.socket.socket(trio.socket.AF_UNIX)
        await killed.bind(str(folder / SOCKET))
        killed.close()  # the file stays
        left = identity(folder)
        await until(lambda: identity(folder) not in (None, left))
        assert (await told(folder))["resources"]


async def test_crowd_that_does_not_read_is_bounded_and_let_go(
    folder: Path, state: DaemonState, fast_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than a socket's buffer holds, so that the writing waits for the reader.
    monkeypatch.setattr(status_socket, "status_document", lambda _state: "x" * 2**19)
    async with serving(folder, state), contextlib.AsyncExitStack() as crowd:
        fast_clock.rate = 0.0
        for _ in range(CONNECTIONS):
            one = await crowd.enter_async_context(await trio.open_unix_socket(folder / SOCKET))
            assert await one.receive_some(1) != b""
        async with await trio.open_unix_socket(folder / SOCKET) as late:
            assert await late.receive_some() == b"", "no room"
        fast_clock.jump(DEADLINE)
        await wait_all_tasks_blocked()
        async with await trio.open_unix_socket(folder / SOCKET) as later:
            assert await later.receive_some() != b""


async def test_folder_that_cannot_be_made_is_said_in_a_line(
    folder: Path, state: DaemonState
) -> None:
    folder.write_text("a file in its place")
    with pytest.raises(SocketUnusable, match=r"`status` cannot be answered: .*see --status-dir"):
        await serve_status(folder, state)


def test_without_a_daemon_one_line_says_what_to_do(folder: Path) -> None:
    with pytest.raises(StatusUnavailable, match="no daemon runs here: nobody serves"):
        ask(folder)


def test_only_root_may_ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root, who runs the tests in CI, is never refused: the refusal is what connect() would raise.
    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("biren_plugin.operate.status_view.socket.socket.connect", refuse)
    with pytest.raises(StatusUnavailable, match="only root may ask the daemon; try with sudo"):
        ask(folder)


async def test_daemon_that_breaks_off_is_no_traceback(folder: Path) -> None:
    folder.mkdir()
    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(folder / SOCKET))
        listener.listen()

        async def break_off() -> None:
            connection, _ = await listener.accept()
            await connection.send(b'{"version": ')
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_off)
            with pytest.raises(StatusUnavailable, match="did not answer"):
                await trio.to_thread.run_sync(ask, folder)


def shown(
    document: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr(status_view, "ask", lambda _folder: document)
    show_status(Path("/nowhere"), as_json=False, watch=False)
    return capsys.readouterr().out.splitlines()


async def test_table_has_a_row_for_each_card(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(state, GPU, taken=False)
    document = status_document(state) | {"time": "2023-11-15T03:13:20Z"}
    first, problem, _, _, resource, _, headings, well, sick = shown(document, capsys, monkeypatch)
    assert first.startswith(f"br-gpu-device-plugin {document['version']}, process {os.getpid()}")
    assert problem == f"! {GPU}: not registered with the kubelet"
    assert resource.split() == [GPU, "NO", "1", "of", "2", "-"]
    assert headings.split() == ["CARD", "RESOURCE", "HEALTH", "FOR", "POD", "REASON"]
    assert well.split() == ["card_0", GPU, "Healthy", "5", "h", "default/train"]
    assert sick.split(maxsplit=6) == ["card_1", GPU, "Unhealthy", "5", "h", "-", "it is hot"]


async def test_holders_that_nobody_tells_are_unknown_and_not_none(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(state, holders=None)
    *_, well, _ = shown(status_document(state), capsys, monkeypatch)
    assert well.split()[-1] == "unknown"


async def test_table_in_a_terminal_shows_what_a_reason_says_word_for_word(
    state: DaemonState, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(state, listed(GPU, SICK.because("[red]see[/red] `dmesg`")))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    *_, row = shown(status_document(state), capsys, monkeypatch)
    assert "it is hot; [red]see[/red] `dmesg`" in row
    assert "\033[1;31mUnhealthy" in row


async def test_node_without_cards_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(status_document(new_state()), capsys, monkeypatch)[-1] == (
        "No Biren card on this node."
    )


@pytest.mark.parametrize(
    ("since", "span"),
    [
        (None, "-"),
        ("2026-03-01T12:00:00Z", "0 s"),
        ("2026-03-01T12:00:01Z", "0 s"),
        ("2026-03-01T11:58:01Z", "119 s"),
        ("2026-03-01T11:58:00Z", "2 min"),
        ("2026-03-01T09:59:00Z", "2 h"),
        ("2026-02-01T12:00:00Z", "28 d"),
    ],
)
def test_spans_are_in_the_unit_that_people_would_use(since: str | None, span: str) -> None:
    assert status_view._span(since, "2026-03-01T12:00:00Z") == span


def test_watching_goes_on_while_the_daemon_is_away_and_ends_with_control_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter([None, KeyboardInterrupt])

    def pause(_seconds: float) -> None:
        if (error := next(pauses)) is not None:
            raise error

    monkeypatch.setattr("biren_plugin.operate.status_view.time.sleep", pause)
    show_status(Path("/nowhere"), as_json=True, watch=True)
    captured = capsys.readouterr()
    assert captured.out == "", "what a program reads holds documents only"
    assert captured.err.count("no daemon runs here") == 2
