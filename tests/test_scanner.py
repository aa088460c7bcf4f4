"""The scanner posts what the host holds, and a look that hangs takes nothing away."""

import threading
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.core.model import Inventory, Snapshot
from biren_plugin.host import scanner
from biren_plugin.host.doorbell import Doorbell
from biren_plugin.host.lookout import READ_DEADLINE, Lookout
from biren_plugin.host.reader import HostReader
from biren_plugin.host.scanner import scan_host
from biren_plugin.simulate.host import SimulatedHost
from tests.cards import GPU, gpu_cards, ids, snapshot
from tests.stepped_bell import SteppedBell

PULSE = 300
REAL_DEADLINE = 20.0

ONE = snapshot(*gpu_cards(0, 0))
TWO = snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1))


class ScriptedReader(HostReader):
    """Reads what a test says, and hangs in it for as long as a test says."""

    def __init__(self) -> None:
        self.holds = ONE
        self.reads: list[bool] = []
        """For each read, whether all was to be read anew."""
        self.hanging = trio.Event()
        """Set when a read has begun to hang."""
        self.reading = None
        self._let_go = threading.Event()
        self._let_go.set()

    def read(self, *, anew: bool = False, skip: Collection[str] = ()) -> Snapshot:
        self.reads.append(anew)
        held = self.holds
        if not self._let_go.is_set():
            trio.from_thread.run_sync(self.hanging.set)
            self._let_go.wait()
        return held

    def hang(self) -> None:
        self._let_go.clear()

    def let_go(self) -> None:
        self._let_go.set()


@pytest.fixture
def reader() -> Iterator[ScriptedReader]:
    reader = ScriptedReader()
    yield reader
    reader.let_go()  # or the thread would outlive the test, whatever the test did


@pytest.fixture
def inventory() -> Board[Inventory]:
    return Board[Inventory]()


@pytest.fixture
async def bell(
    reader: ScriptedReader, inventory: Board[Inventory], mock_clock: MockClock
) -> AsyncIterator[SteppedBell]:
    """Rings for a running scanner. Time stands still unless a test moves it.

    (A clock that jumps by itself would jump over the deadline of every read: it does not see that a
    thread is at work.)
    """
    bell = SteppedBell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: scan_host(Lookout(lambda: reader), bell, inventory, pulse=PULSE))
        await bell.asleep.wait()
        yield bell
        nursery.cancel_scope.cancel()


def healthy(inventory: Board[Inventory]) -> list[str]:
    assert inventory.latest is not None
    found = inventory.latest.list_of(GPU)
    return ids(each for each in found.devices if each.healthy) if found is not None else []


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_first_look_is_posted_at_once(bell: SteppedBell, inventory: Board[Inventory]) -> None:
    assert healthy(inventory) == ["card_0"]


async def test_only_what_changed_is_posted(
    bell: SteppedBell,
    inventory: Board[Inventory],
    reader: ScriptedReader,
    mock_clock: MockClock,
) -> None:
    with inventory.subscribe() as posted:
        posted.receive_nowait()
        await bell.ring()
        with pytest.raises(trio.WouldBlock):
            posted.receive_nowait()
        reader.holds = snapshot()
        await bell.ring()
        [devices] = posted.receive_nowait().lists
        assert not devices.devices[0].healthy


async def test_time_passes_for_what_has_to_settle(
    bell: SteppedBell,
    inventory: Board[Inventory],
    reader: ScriptedReader,
    mock_clock: MockClock,
) -> None:
    reader.holds = TWO
    await bell.ring()
    assert healthy(inventory) == ["card_0"]
    mock_clock.jump(1)
    await bell.ring()
    assert healthy(inventory) == ["card_0", "card_1"]


async def test_bell_is_armed_before_each_look(bell: SteppedBell, reader: ScriptedReader) -> None:
    assert (bell.armed, len(reader.reads)) == (1, 1)
    reader.hang()
    bell.press()
    await reader.hanging.wait()
    assert bell.armed == 2
    reader.let_go()
    await bell.asleep.wait()


async def test_heartbeat_reads_all_anew_and_sends_the_same_list_again(
    bell: SteppedBell,
    inventory: Board[Inventory],
    reader: ScriptedReader,
    mock_clock: MockClock,
) -> None:
    with inventory.subscribe() as posted:
        first = posted.receive_nowait()
        mock_clock.jump(PULSE)
        await bell.ring()
        second = posted.receive_nowait()
        assert second.lists != first.lists
        assert second.lists[0].devices == first.lists[0].devices
        await bell.ring()
        with pytest.raises(trio.WouldBlock):
            posted.receive_nowait()
        mock_clock.jump(PULSE)
        await bell.ring()
        assert posted.receive_nowait().lists != second.lists
    assert reader.reads == [False, True, False, True]


async def test_look_that_hangs_is_said_once_and_leaves_the_last_lists(
    bell: SteppedBell,
    inventory: Board[Inventory],
    reader: ScriptedReader,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader.hang()
    bell.press()
    await reader.hanging.wait()
    mock_clock.jump(READ_DEADLINE)
    await bell.asleep.wait()
    assert healthy(inventory) == ["card_0"]
    assert len(errors(caplog)) == 1
    assert "reading /sys and /dev takes more than 5 s" in errors(caplog)[0]

    for _ in range(3):
        bell.press()
        await wait_all_tasks_blocked()
        mock_clock.jump(READ_DEADLINE)
        await bell.asleep.wait()
    assert len(errors(caplog)) == 1, "it is said once"
    assert len(reader.reads) == 2, "there is never more than one thread"


async def test_scanner_carries_on_when_the_thread_comes_back(
    bell: SteppedBell,
    inventory: Board[Inventory],
    reader: ScriptedReader,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for times in (1, 2):
        reader.holds = ONE
        reader.hanging = trio.Event()
        reader.hang()
        bell.press()
        await reader.hanging.wait()
        mock_clock.jump(READ_DEADLINE)
        await bell.asleep.wait()
        assert len(errors(caplog)) == times, "each new hang is said"
        reader.holds = snapshot()
        reader.let_go()
        await bell.ring()
        assert healthy(inventory) == [], "the host as it is now, not as the hanging look saw it"
        reader.holds = ONE
        await bell.ring()
        assert healthy(inventory) == ["card_0"]


async def test_slow_look_in_time_is_no_error(
    bell: SteppedBell,
    reader: ScriptedReader,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader.hang()
    bell.press()
    await reader.hanging.wait()
    mock_clock.jump(READ_DEADLINE - 0.1)
    reader.let_go()
    await bell.asleep.wait()
    assert errors(caplog) == []


async def test_operator_reads_what_is_waited_for(
    bell: SteppedBell,
    reader: ScriptedReader,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader.holds = Snapshot(driver_loaded=False)
    for _ in range(10):
        mock_clock.jump(1)
        await bell.ring()
    said = [record for record in caplog.records if "waiting for the driver" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]


async def test_event_in_dev_is_enough_for_a_look(
    tmp_path: Path, inventory: Board[Inventory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "INTERVAL", 3600.0)
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1})
    # Real time, with a deadline: events come from the kernel, which knows no mock clock.
    with trio.fail_after(REAL_DEADLINE), Doorbell([host.root / "dev/biren"]) as bell:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan_host, Lookout(lambda: HostReader(host.root)), bell, inventory)
            await inventory.wait_for(lambda seen: bool(seen.lists))
            host.pull_node("card_1")
            await inventory.wait_for(
                lambda seen: (
                    [each.card.node.value for each in seen.lists[0].devices]
                    == ["a character device", "missing"]
                )
            )
            nursery.cancel_scope.cancel()
