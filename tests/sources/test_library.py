"""The library's readings reach the board, and a faulty library affects nothing else.

Threads call a real shared library, so the clock stands still unless a test moves it.
"""

import shutil
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.core.model import Snapshot
from biren_plugin.core.observed import Holder, LibraryRound, Observed
from biren_plugin.core.parse.brml import (
    CardReading,
    CommonAncestor,
    KnownCard,
    LibraryStatus,
    P2PLink,
    ReturnCode,
)
from biren_plugin.host.brml_reader import BrmlReader, Links
from biren_plugin.host.patient_reads import FOLLOWING, PATIENCE, SHARED
from biren_plugin.sources.library import RETRY, SOONER, query_library
from tests.brml import WELL, BrmlState
from tests.support.cards import gpu_cards, snapshot
from tests.support.clocks import jump

INTERVAL = 5.0
NONE = frozenset[int]()
REAL_DEADLINE = 20.0
"""Seconds for what takes milliseconds: only a test that fails waits so long."""
STATUS = "brmlDeviceGetHealthStatus"


class Node:
    """A host with two whole GPUs, `card_0` and `card_1`, and the task that reads the library."""

    def __init__(self, root: Path, clock: MockClock, brml: BrmlState) -> None:
        self.root = root
        self.brml = brml
        self.observed = Board[Observed]()
        self._clock = clock
        self._hanging = 0
        """Threads that hang in a call."""
        self.show(snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1)))

    def show(self, seen: Snapshot) -> None:
        """Show these cards on the host."""
        self.observed.post(attrs.evolve(self.observed.latest or Observed(), snapshot=seen))

    def install(self, library: Path) -> None:
        """Put the library on the host."""
        self.library.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, self.library)

    @property
    def library(self) -> Path:
        """The library's path on the host."""
        return self.root / "usr/lib/libbiren-ml.so.1"

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the task, and run it until it waits for a library's thread or for the next round."""
        assert trio.lowlevel.current_clock() is self._clock, (
            "the test itself must ask for the clock"
        )
        nursery.start_soon(lambda: query_library(self.root, self.observed, interval=INTERVAL))
        await wait_all_tasks_blocked()

    async def round(self, *, after: float = INTERVAL, stuck: float | None = None) -> LibraryRound:
        """Return the next round, so many seconds later.

        `stuck`: a call hangs in the round, and the clock then moves by this many seconds.
        """
        with self.observed.subscribe() as posted:
            posted.receive_nowait()
            await self.pass_time(after)
            if stuck is not None:
                await self.stuck(stuck)
            library = (await posted.receive()).library
        assert library is not None
        return library

    async def round_with(self, wanted: Callable[[LibraryRound], bool]) -> LibraryRound:
        """Return the first round that fits: threads return in their own time."""
        deadline = time.monotonic() + REAL_DEADLINE
        while not wanted(found := await self.round()):
            assert time.monotonic() < deadline, found
        return found

    async def stuck(self, seconds: float) -> str:
        """Wait until one more call hangs, move the clock, and return that call."""
        where = await trio.to_thread.run_sync(self.brml.wait_for_hang)
        self._hanging += 1
        await self.pass_time(seconds)
        return where

    def release(self) -> None:
        """Let every hanging call return; nothing hangs from now on."""
        self._hanging = 0
        self.brml.release()

    async def resting(self) -> None:
        """Wait until the task waits for its next try, which is longer than a round may take."""
        await wait_all_tasks_blocked()
        await until(lambda: trio.lowlevel.current_statistics().seconds_to_next_deadline > PATIENCE)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock once no thread is running except those that hang."""
        await jump(self._clock, seconds, hanging=self._hanging)

    async def first_round(self) -> LibraryRound:
        """Return the first posted round."""
        seen = await self.observed.wait_for(lambda seen: seen.library is not None)
        assert seen.library is not None
        return seen.library


@pytest.fixture
async def node(
    tmp_path: Path, mock_clock: MockClock, brml: BrmlState, brml_library: Path
) -> AsyncIterator[Node]:
    """A node with a current library, which knows both cards and reports everything about them."""
    node = Node(tmp_path, mock_clock, brml)
    node.install(brml_library)
    brml.set_system(driver="1.12.0", library="1.9")
    brml.add_gpu(0, **WELL)
    brml.add_gpu(1, **WELL)
    yield node
    brml.release()  # or threads would outlive the test


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread, which no clock of the test controls."""
    deadline = time.monotonic() + REAL_DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        await wait_all_tasks_blocked()


def lines(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == level]


async def test_library_readings_arrive_on_the_board(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await node.start(nursery)
    first = await node.first_round()
    assert first.known == {0: KnownCard(0, 1), 1: KnownCard(1, 1)}
    assert {number: each.temperature for number, each in first.readings.items()} == {0: 41, 1: 41}
    assert (first.hung, first.facts.driver_version) == (NONE, "1.12.0")
    assert lines(caplog, "INFO") == [
        f"management library {node.library}, version 1.9, driver 1.12.0"
    ]
    node.brml.set_card(1, temperature=96, status=2)
    again = await node.round()
    assert (again.readings[1].temperature, again.readings[1].status) == (96, LibraryStatus.CRITICAL)
    assert again.at == first.at + INTERVAL
    assert len(lines(caplog, "INFO")) == 1, "the library is logged once"


async def test_waiting_for_an_unreadable_host_does_not_count_as_stuck(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Otherwise the liveness probe would end a daemon that a restart cannot help."""
    turns: list[float] = []
    query = partial(
        query_library, tmp_path, Board[Observed](), interval=INTERVAL, on_turn=turns.append
    )
    nursery.start_soon(query)
    await trio.sleep(4 * INTERVAL + 1)
    assert turns == [0.0] * 5


async def test_other_sources_are_not_changed(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    holders = {("birentech.com/gpu", "card_0"): Holder("default", "pod")}
    node.observed.post(attrs.evolve(node.observed.latest or Observed(), holders=holders))
    await node.start(nursery)
    await node.first_round()
    assert node.observed.latest is not None
    assert node.observed.latest.holders == holders


async def test_new_cards_are_read_at_once(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    await node.start(nursery)
    await node.first_round()
    node.brml.add_gpu(2, **WELL)
    node.show(snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1), *gpu_cards(2, 2)))
    seen = await node.observed.wait_for(
        lambda seen: seen.library is not None and 2 in seen.library.readings
    )
    assert seen.library is not None
    assert seen.library.known[2] == KnownCard(2, 1)


async def test_a_card_whose_calls_hang_is_hung_after_5_s_and_the_others_are_still_read(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    await node.start(nursery)
    await node.first_round()
    node.brml.hang(STATUS, 1)
    node.brml.set_card(0, temperature=50)
    hanging = await node.round(stuck=SHARED)
    assert hanging.readings[0].temperature == 50
    assert (hanging.readings[1].temperature, hanging.hung) == (41, NONE), "it may only be slow"
    for _ in range(round((PATIENCE - SHARED) / SOONER) - 1):
        assert (await node.round(after=SOONER)).hung == NONE
    assert (await node.round(after=SOONER)).hung == {1}, (
        "the next round does not wait a whole interval"
    )
    for temperature in (51, 52, 53):
        node.brml.set_card(0, temperature=temperature)
        later = await node.round(after=PATIENCE)
        assert (later.hung, later.readings[0].temperature) == (frozenset({1}), temperature)


async def test_a_returning_card_is_read_again(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    await node.start(nursery)
    await node.first_round()
    node.brml.hang(STATUS, 1)
    await node.round(stuck=SHARED)
    assert (await node.round(after=PATIENCE)).hung == {1}
    node.brml.set_card(1, temperature=60)
    node.release()
    await node.round_with(lambda each: not each.hung and each.readings[1].temperature == 60)


async def test_a_call_that_times_out_is_marked_in_the_reading(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.brml.fail("brmlDeviceGetPowerUsage", ReturnCode.TIMEOUT, 1)
    await node.start(nursery)
    reading = (await node.first_round()).readings[1]
    assert (reading.timed_out, reading.temperature, reading.power) == (True, 41, None)


async def test_a_card_whose_handle_times_out_has_a_reading_with_only_that(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.brml.fail("brmlDeviceGetHandleByNodeId", ReturnCode.TIMEOUT, 1)
    await node.start(nursery)
    first = await node.first_round()
    assert first.readings[1] == CardReading(1, timed_out=True)
    assert first.readings[0].temperature == 41


async def test_a_card_unknown_to_the_library_has_no_reading(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.brml.set("gpus", 1)
    node.brml.set_gpu(1, nodes=None)
    await node.start(nursery)
    first = await node.first_round()
    assert set(first.known) == set(first.readings) == {0}


async def test_a_library_that_supports_nothing_causes_no_fault(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for function in ("DeviceGetCount", "DeviceGetHandleByNodeId", "SystemGetDriverVersion"):
        node.brml.fail(f"brml{function}", ReturnCode.NOT_SUPPORTED)
    await node.start(nursery)
    first = await node.first_round()
    assert (first.known, first.readings, first.hung) == ({}, {}, NONE)
    await node.round()
    assert lines(caplog, "WARNING") == []


async def test_the_missing_functions_of_an_old_library_are_logged_once(
    node: Node,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    old_brml_library: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node.install(old_brml_library)
    await node.start(nursery)
    first = await node.first_round()
    assert (first.readings[0].temperature, first.readings[0].status) == (41, None)
    await node.round()
    [said] = lines(caplog, "WARNING")
    assert "too old for brmlDeviceGetGpuInstanceById, brmlDeviceGetInstanceNumber" in said


async def test_a_missing_library_is_logged_once_and_searched_for_again(
    node: Node,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    brml_library: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    node.library.unlink()
    await node.start(nursery)
    await node.resting()
    node.show(snapshot(*gpu_cards(0, 0)))  # another try
    await node.resting()
    assert lines(caplog, "INFO") == [
        "there is no management library on this node. Health checks go on without the library"
    ]
    assert lines(caplog, "WARNING") == []
    node.install(brml_library)
    assert set((await node.round(after=RETRY)).readings) == {0}


@pytest.mark.parametrize("content", [b"", b"broken"])
async def test_an_empty_or_broken_library_causes_one_warning(
    node: Node,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    node.library.write_bytes(content)
    await node.start(nursery)
    await until(lambda: bool(caplog.records))
    assert len(lines(caplog, "WARNING")) == 1
    assert f"cannot load {node.library}: " in lines(caplog, "WARNING")[0]


async def test_an_unloaded_driver_causes_one_warning_until_it_is_loaded(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.brml.fail("brmlInit", ReturnCode.DRIVER_NOT_LOADED)
    node.brml.set("error.7", "driver not loaded")
    await node.start(nursery)
    await until(lambda: bool(caplog.records))
    assert "brmlInit(): driver not loaded (code 7)" in lines(caplog, "WARNING")[0]
    node.brml.fail("brmlInit", 0)
    await wait_all_tasks_blocked()
    assert set((await node.round(after=RETRY)).readings) == {0, 1}
    assert len(lines(caplog, "WARNING")) == 1


async def test_after_the_driver_goes_its_readings_are_dropped_and_the_library_is_reopened_for_the_next(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await node.start(nursery)
    await node.first_round()
    for function in ("brmlInit", "brmlDeviceGetCount", "brmlDeviceGetHandleByNodeId"):
        node.brml.fail(function, ReturnCode.DRIVER_NOT_LOADED)
    gone = await node.round()
    assert (gone.known, gone.readings) == ({}, {}), "old readings are no longer true"
    await node.pass_time(INTERVAL)
    await node.observed.wait_for(lambda seen: seen.library is None)
    assert len(lines(caplog, "WARNING")) == 1
    for function in ("brmlInit", "brmlDeviceGetCount", "brmlDeviceGetHandleByNodeId"):
        node.brml.fail(function, 0)
    assert set((await node.round(after=RETRY)).readings) == {0, 1}


async def test_a_library_that_hangs_while_opening_is_logged_once_and_used_when_it_returns(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.brml.hang("brmlInit")
    await node.start(nursery)
    await node.stuck(PATIENCE)
    await until(lambda: bool(caplog.records))
    for _ in range(3):
        await node.pass_time(RETRY)
    await wait_all_tasks_blocked()
    [said] = lines(caplog, "WARNING")
    assert "the management library takes more than 5 s, as when a driver hangs" in said
    node.release()
    while node.observed.latest is None or node.observed.latest.library is None:
        await node.pass_time(RETRY)  # it is tried again


async def test_a_hanging_list_of_cards_is_dropped_and_logged_once_while_cards_are_read(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await node.start(nursery)
    await node.first_round()
    node.brml.hang("brmlDeviceGetCount")
    assert set((await node.round(stuck=SHARED)).known) == {0, 1}
    node.brml.set_card(0, temperature=70)
    for _ in range(2):
        later = await node.round(after=PATIENCE)
        assert (later.known, later.hung, later.readings[0].temperature) == ({}, NONE, 70)
    [said] = lines(caplog, "WARNING")
    assert "has not answered about the list of its cards for 5 s" in said
    caplog.set_level("INFO")
    node.release()
    assert set((await node.round(after=PATIENCE)).known) == {0, 1}
    assert "the management library answers about the list of its cards again" in lines(
        caplog, "INFO"
    )


async def test_links_are_read_once_for_each_list_of_cards(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.brml.set_pair(0, 1, p2p="2 2", ancestor=10)
    await node.start(nursery)
    assert (await node.first_round()).links == {}
    linked = await node.round(after=SOONER)
    assert linked.links == {(0, 1): P2PLink.DIRECT}
    assert linked.ancestors == {(0, 1): CommonAncestor.PCIE_SWITCH}
    node.brml.set_pair(0, 1, p2p="0 0", ancestor=50)
    assert (await node.round()).links == {(0, 1): P2PLink.DIRECT}, "it was not asked again"
    node.brml.split(1, 1, 2)
    anew = await node.round()
    assert (set(anew.known), anew.links, anew.ancestors) == ({0, 1, 2}, {}, {})
    linked = await node.round(after=SOONER)
    assert linked.links == {(0, 1): P2PLink.NONE}
    assert linked.ancestors == {(0, 1): CommonAncestor.SYSTEM}


async def test_a_failing_pair_loses_only_its_own_link(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.brml.add_gpu(2, **WELL)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        node.brml.set_pair(a, b, p2p="1 1", ancestor=30)
    node.brml.set_pair(0, 1, p2p=None)
    node.brml.fail("brmlDeviceGetTopologyCommonAncestor", ReturnCode.UNKNOWN, 1)
    await node.start(nursery)
    await node.first_round()
    linked = await node.round(after=SOONER)
    assert set(linked.links) == {(0, 2), (1, 2)}
    assert set(linked.ancestors) == {(0, 1), (0, 2)}


async def test_a_card_without_a_handle_has_no_links(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node.brml.set_pair(0, 1, p2p="1 1", ancestor=30)
    node.brml.fail("brmlDeviceGetHandleByNodeId", ReturnCode.UNKNOWN, 1)
    await node.start(nursery)
    await node.first_round()
    linked = await node.round(after=SOONER)
    assert (linked.links, linked.ancestors) == ({}, {})


async def test_hanging_links_are_logged_once_and_stop_no_other_read(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.brml.add_gpu(2, **WELL)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        node.brml.set_pair(a, b, p2p="1 1", ancestor=30)
    node.brml.hang("brmlDeviceGetP2PStatus_v2", 0)
    await node.start(nursery)
    await node.first_round()
    linked = await node.round(after=SOONER, stuck=SHARED)
    assert set(linked.links) == {(1, 2)}
    node.brml.set_card(0, temperature=70)
    for _ in range(2):
        later = await node.round(after=PATIENCE)
        assert (later.hung, later.readings[0].temperature) == (NONE, 70)
        assert set(later.links) == {(1, 2)}
    [said] = lines(caplog, "WARNING")
    assert "has not answered about the links of card_0 for 5 s" in said
    node.release()
    await node.round_with(lambda each: len(each.links) == 3)


async def test_late_links_are_not_lost_to_a_second_read(node: Node) -> None:
    """A slow name is read once more, when its links are no longer needed: that read must not replace them."""
    reader = BrmlReader(node.root)
    reader.linked = {0: KnownCard(0, 1), 1: KnownCard(1, 1)}
    *_, row = reader.names()
    assert isinstance(reader.read(row), Links)
    reader.linked = {}
    assert reader.read(row) is None


async def test_a_library_that_hangs_at_every_card_still_lists_the_cards(
    node: Node, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    await node.start(nursery)
    await node.first_round()
    node.brml.hang(STATUS)
    with node.observed.subscribe() as posted:
        posted.receive_nowait()
        await node.pass_time(INTERVAL)
        await node.stuck(SHARED)
        await node.stuck(FOLLOWING)
        await posted.receive()
    later = await node.round(after=PATIENCE)
    assert later.hung == set(later.known) == {0, 1}
