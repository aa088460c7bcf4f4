"""The scanner posts what the host shows, and a hanging scan removes nothing."""

import logging
import threading
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.model import Snapshot
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import LibraryFacts
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.patient_reads import PATIENCE, SHARED
from biren_plugin.simulate.host import SimulatedHost
from biren_plugin.sources.scan import REREAD, scan_host
from tests.support.cards import gpu_cards, snapshot
from tests.support.clocks import Gate, jump, settled
from tests.support.stepped_events import SteppedEvents

PULSE = 300
REAL_DEADLINE = 20.0

ONE = snapshot(*gpu_cards(0, 0))
TWO = snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1))


class ScriptedReader:
    """Returns a test's cards, and hangs for as long as the test wants."""

    def __init__(self) -> None:
        self.holds = ONE
        self.reads: list[bool] = []
        """For each read card, whether everything was to be read again."""
        self.seen = self.outline = ONE
        """What the last listing saw, and what a glance sees without reading a card."""
        self.glances: list[int] = []
        """For each glance, in how many turns everything is to be read."""
        self.hangs_at: str | None = None
        """A card's name, or `listing`."""
        self._hanging = threading.Event()
        self._let_go = Gate()

    def names(self) -> list[str]:
        self.seen = self.outline = self.holds
        names = [card.name for card in self.holds.cards]
        self._hang_if_told("listing")
        return names

    def read(self, name: str, *, fresh: bool) -> Card | None:
        self.reads.append(fresh)
        held = self.holds
        self._hang_if_told(name)
        return next((card for card in held.cards if card.name == name), None)

    def due(self, turns: int) -> list[str] | None:
        self.glances.append(turns)
        self._hang_if_told("listing")
        return [card.name for card in self.seen.cards] if self.seen == self.outline else None

    def glance(self, name: str) -> Card | None:
        self._hang_if_told(name)
        return next((card for card in self.holds.cards if card.name == name), None)

    def snapshot(self, readings: Mapping[str, Card], hung: Collection[str]) -> Snapshot:
        cards = {**{name: Card(name, 99) for name in hung}, **readings}
        return attrs.evolve(
            self.holds,
            cards=tuple(attrs.evolve(card, hung=name in hung) for name, card in cards.items()),
        )

    def _hang_if_told(self, where: str) -> None:
        if self.hangs_at == where:
            self._hanging.set()
            self._let_go.wait()

    async def until_it_hangs(self) -> None:
        assert await trio.to_thread.run_sync(self._hanging.wait, 10)

    def let_go(self) -> None:
        self.hangs_at = None
        self._let_go.set()


@pytest.fixture
def reader() -> Iterator[ScriptedReader]:
    reader = ScriptedReader()
    yield reader
    reader.let_go()  # or the thread would outlive the test, whatever the test did


@pytest.fixture
def observed() -> Board[Observed]:
    return Board[Observed]()


async def ring_until_it_hangs(
    bell: SteppedEvents, reader: ScriptedReader, clock: MockClock, where: str, seconds: float
) -> None:
    """Have the host scanned while a read hangs, and move the clock; return when the scan has given up."""
    reader.hangs_at = where
    bell.press()
    await reader.until_it_hangs()
    await jump(clock, seconds)
    await bell.asleep.wait()


@pytest.fixture
async def bell(
    reader: ScriptedReader, observed: Board[Observed], mock_clock: MockClock
) -> AsyncIterator[SteppedEvents]:
    """The events of a running scanner whose scans are awaited. The clock stands still unless a test moves it."""
    bell = SteppedEvents()
    with observed.subscribe(repeats=lambda: True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: scan_host(reader, bell, observed, interval=1.0, pulse=PULSE))
            await bell.asleep.wait()
            yield bell
            nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """Counts how often the scanner's task runs."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == "the scanner"


@pytest.fixture
def turns() -> list[float]:
    """The seconds of each scan of `idle_bell`."""
    return []


@pytest.fixture
async def idle_bell(
    reader: ScriptedReader, observed: Board[Observed], mock_clock: MockClock, turns: list[float]
) -> AsyncIterator[SteppedEvents]:
    """As `bell`, after the first scan; nobody waits for an unchanged host, and nothing changes in a directory."""
    bell = SteppedEvents()
    scan = partial(scan_host, reader, bell, observed, interval=1.0, on_turn=turns.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scan, name="the scanner")
        await bell.asleep.wait()
        bell.changed = False
        yield bell
        nursery.cancel_scope.cancel()


def is_read(observed: Board[Observed]) -> bool:
    """Whether the host has been read."""
    return observed.latest is not None


def cards(observed: Board[Observed]) -> dict[str, bool]:
    """Return whether each card hangs."""
    assert observed.latest is not None
    assert observed.latest.snapshot is not None
    return {card.name: card.hung for card in observed.latest.snapshot.cards}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_the_first_scan_is_posted_at_once(
    bell: SteppedEvents, observed: Board[Observed]
) -> None:
    assert cards(observed) == {"card_0": False}


async def test_every_scan_is_posted_so_that_splits_can_settle(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader
) -> None:
    with observed.subscribe() as posted:
        posted.receive_nowait()
        await bell.ring()
        assert posted.receive_nowait().snapshot == ONE
        reader.holds = TWO
        await bell.ring()
        assert posted.receive_nowait().snapshot == TWO


async def test_other_sources_values_are_not_changed(
    bell: SteppedEvents, observed: Board[Observed]
) -> None:
    told = LibraryRound(0.0, LibraryFacts("libbiren-ml.so.1"))
    observed.post(attrs.evolve(observed.latest or Observed(), library=told))
    await bell.ring()
    assert observed.latest is not None
    assert observed.latest.library == told


async def test_events_are_armed_before_each_scan(
    bell: SteppedEvents, reader: ScriptedReader
) -> None:
    assert (bell.armed, len(reader.reads)) == (1, 1)
    reader.hangs_at = "listing"
    bell.press()
    await reader.until_it_hangs()
    assert bell.armed == 2
    reader.let_go()
    await bell.asleep.wait()


async def test_the_heartbeat_reads_everything_again_and_is_counted(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, mock_clock: MockClock
) -> None:
    def pulse() -> int:
        assert observed.latest is not None
        return observed.latest.pulse

    assert pulse() == 0
    for beats in (1, 2):
        await jump(mock_clock, PULSE)
        await bell.ring()
        assert pulse() == beats
        await bell.ring()
        assert pulse() == beats
    assert reader.reads == [False, True, False, True, False]


async def test_without_an_event_a_scan_is_a_glance_which_reads_nothing_else(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader
) -> None:
    bell.changed = False
    before = observed.latest
    with observed.subscribe(repeats=lambda: True) as posted:
        posted.receive_nowait()
        await bell.ring()
        await bell.ring()
        assert posted.receive_nowait() is before, "the same object is quickly compared"
    assert reader.reads == [False]
    assert reader.glances == [5, 5], "seconds between two whole reads of a function"


async def test_a_glance_of_an_idle_node_that_finds_nothing_new_wakes_no_task(
    idle_bell: SteppedEvents,
    observed: Board[Observed],
    reader: ScriptedReader,
    mock_clock: MockClock,
    turns: list[float],
) -> None:
    steps = Steps()
    with observed.subscribe() as posted:
        posted.receive_nowait()
        trio.lowlevel.add_instrument(steps)
        for _ in range(10):
            await jump(mock_clock, 1)
            await idle_bell.ring()
        await settled()
        trio.lowlevel.remove_instrument(steps)
        with pytest.raises(trio.WouldBlock):
            posted.receive_nowait()
    assert len(reader.glances) == 10
    assert steps.count == 10
    assert len(turns) == 10, "the last glance is noted at the next wake-up"


@pytest.mark.parametrize("sight", ["another card", "other nodes"])
async def test_a_glance_of_an_idle_node_that_finds_a_change_is_followed_by_a_whole_scan_at_once(
    idle_bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, sight: str
) -> None:
    if sight == "another card":
        reader.holds = snapshot(*gpu_cards(0, 7))
    else:
        reader.holds = reader.outline = TWO
    idle_bell.press()
    await settled()
    assert observed.latest is not None
    assert observed.latest.snapshot == reader.holds


async def test_an_event_after_a_glance_of_an_idle_node_is_followed_by_a_whole_scan(
    idle_bell: SteppedEvents, reader: ScriptedReader
) -> None:
    idle_bell.press()
    await settled()
    assert len(reader.glances) == 1
    idle_bell.changed = True
    idle_bell.press()
    await settled()
    assert (len(reader.glances), len(reader.reads)) == (1, 2)


@pytest.mark.parametrize("sight", ["the same", "other nodes"])
async def test_an_event_during_a_glance_of_an_idle_node_is_followed_by_a_whole_scan(
    idle_bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, sight: str
) -> None:
    if sight == "other nodes":
        reader.outline = TWO
    reader.hangs_at = "card_0"
    idle_bell.press()
    await reader.until_it_hangs()
    idle_bell.changed = True
    idle_bell.press()
    await settled()
    before = len(reader.reads)
    reader.let_go()
    await settled()
    assert len(reader.reads) == before + 1


async def test_a_glance_of_an_idle_node_that_hangs_counts_as_hung_as_any_scan(
    idle_bell: SteppedEvents,
    observed: Board[Observed],
    reader: ScriptedReader,
    mock_clock: MockClock,
) -> None:
    reader.hangs_at = "card_0"
    idle_bell.press()
    await reader.until_it_hangs()
    await jump(mock_clock, SHARED)
    idle_bell.press()
    await settled()
    assert cards(observed) == {"card_0": False}
    await jump(mock_clock, PATIENCE - SHARED)
    idle_bell.press()
    await settled()
    assert cards(observed) == {"card_0": True}


async def test_a_glance_of_an_idle_node_that_cannot_be_read_is_logged_at_once_and_so_is_its_end(
    idle_bell: SteppedEvents,
    reader: ScriptedReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: int) -> None:
        raise HostUnreadable("cannot read /sys/class/biren: permission denied")

    caplog.set_level(logging.INFO)
    with monkeypatch.context() as refusing:
        refusing.setattr(reader, "due", fail)
        refusing.setattr(reader, "names", fail)
        for _ in range(2):
            idle_bell.press()
            await settled()
    assert len(errors(caplog)) == 1
    assert "cannot read /sys/class/biren: permission denied" in errors(caplog)[0]
    assert "can be read again" not in caplog.text
    idle_bell.press()
    await settled()
    assert "can be read again" in caplog.text


@pytest.mark.parametrize("sight", ["another card", "other nodes"])
async def test_a_glance_that_finds_a_change_is_followed_by_a_whole_scan_at_once(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, sight: str
) -> None:
    bell.changed = False
    if sight == "another card":
        reader.holds = snapshot(*gpu_cards(0, 7))
    else:
        reader.holds = reader.outline = TWO
    await bell.ring()
    assert observed.latest is not None
    assert observed.latest.snapshot == reader.holds
    assert len(reader.reads) == 1 + len(reader.holds.cards)


async def test_while_a_read_hangs_each_scan_is_whole(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, mock_clock: MockClock
) -> None:
    reader.holds = TWO
    await bell.ring()
    bell.changed = False
    await ring_until_it_hangs(bell, reader, mock_clock, "card_1", SHARED)
    assert cards(observed) == {"card_0": False, "card_1": False}
    glances = len(reader.glances)
    await jump(mock_clock, PATIENCE)
    await bell.ring()
    assert cards(observed) == {"card_0": False, "card_1": True}
    assert len(reader.glances) == glances


async def test_a_hanging_scan_is_logged_once_and_the_last_snapshot_stays(
    bell: SteppedEvents,
    observed: Board[Observed],
    reader: ScriptedReader,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await ring_until_it_hangs(bell, reader, mock_clock, "listing", PATIENCE)
    assert cards(observed) == {"card_0": False}
    assert len(errors(caplog)) == 1
    assert "reading /sys and /dev takes more than 5 s" in errors(caplog)[0]
    for _ in range(3):
        await bell.ring()
    assert len(errors(caplog)) == 1, "it is logged once"


async def test_the_scanner_continues_when_the_thread_returns(
    bell: SteppedEvents,
    observed: Board[Observed],
    reader: ScriptedReader,
    mock_clock: MockClock,
) -> None:
    await ring_until_it_hangs(bell, reader, mock_clock, "listing", PATIENCE)
    reader.holds = TWO
    reader.let_go()
    while cards(observed) != {"card_0": False, "card_1": False}:
        await bell.ring()  # the thread returns in its own time


async def test_a_hanging_card_keeps_its_last_reading_and_then_counts_as_hung(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, mock_clock: MockClock
) -> None:
    reader.holds = TWO
    await bell.ring()
    await ring_until_it_hangs(bell, reader, mock_clock, "card_1", SHARED)
    assert cards(observed) == {"card_0": False, "card_1": False}
    await jump(mock_clock, PATIENCE)
    await bell.ring()
    assert cards(observed) == {"card_0": False, "card_1": True}


async def test_a_card_that_hangs_from_the_start_counts_as_hung_at_once(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, mock_clock: MockClock
) -> None:
    reader.holds = TWO
    await ring_until_it_hangs(bell, reader, mock_clock, "card_1", SHARED)
    assert cards(observed) == {"card_0": False, "card_1": True}, "otherwise GPUs would look smaller"


async def test_an_event_in_dev_causes_a_scan(tmp_path: Path, observed: Board[Observed]) -> None:
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1})

    def states(seen: Observed) -> list[NodeState]:
        return [card.node for card in seen.snapshot.cards] if seen.snapshot is not None else []

    # Real time, with a deadline: events come from the kernel, which knows no mock clock.
    with trio.fail_after(REAL_DEADLINE), FolderEvents([host.root / "dev/biren"]) as bell:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: scan_host(DriverCardReader(host.root), bell, observed, interval=3600.0)
            )
            await observed.wait_for(lambda seen: bool(states(seen)))
            host.pull_node("card_1")
            await observed.wait_for(
                lambda seen: states(seen) == [NodeState.CHARACTER_DEVICE, NodeState.MISSING]
            )
            nursery.cancel_scope.cancel()


async def test_constant_attributes_are_read_once_a_minute_without_a_heartbeat(
    bell: SteppedEvents, observed: Board[Observed], reader: ScriptedReader, mock_clock: MockClock
) -> None:
    await jump(mock_clock, REREAD)
    await bell.ring()
    await bell.ring()
    assert reader.reads == [False, True, False]
    assert observed.latest is not None
    assert observed.latest.pulse == 0


async def test_a_missing_host_root_is_named_and_its_appearance_is_logged(
    tmp_path: Path,
    observed: Board[Observed],
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    reader = DriverCardReader(tmp_path / "typo")
    async with trio.open_nursery() as nursery:
        with FolderEvents([tmp_path]) as folder_events:
            nursery.start_soon(partial(scan_host, reader, folder_events, observed, interval=1.0))
            await settled()
            assert not is_read(observed)
            assert f"there is no directory {tmp_path / 'typo'}; see --host-root" in caplog.text
            (tmp_path / "typo").mkdir()
            await jump(mock_clock, 1)
            await settled()
            assert is_read(observed)
            nursery.cancel_scope.cancel()
    assert "can be read again" in caplog.text
