"""A read that hangs delays its own name, and no other."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.errors import HostUnreadable
from biren_plugin.host.patient_reads import FOLLOWING, PATIENCE, SHARED, PatientReads, Round
from tests.support.clocks import Gate, jump, settled

THREE = ("card_0", "card_1", "card_2")
LISTING = "the listing"


class Host:
    """Three cards; a test decides which of them hang, and how long."""

    def __init__(self) -> None:
        self.names: Sequence[str] = THREE
        self.hangs_at: set[str] = set()
        self.threads: list[str] = []
        """The name at which each thread began to hang."""
        self._began = threading.Condition()
        self._let_go = Gate()

    def list_names(self) -> Sequence[str]:
        self._hang_if_told(LISTING)
        return self.names

    def read(self, name: str) -> str:
        self._hang_if_told(name)
        return f"{name} was read"

    def _hang_if_told(self, where: str) -> None:
        if where in self.hangs_at:
            let_go = self._let_go
            with self._began:
                self.threads.append(where)
                self._began.notify_all()
            let_go.wait()

    def wait_for_hangs(self, count: int) -> None:
        """Block until so many threads have begun to hang."""
        with self._began:
            assert self._began.wait_for(lambda: len(self.threads) >= count, 10)

    def let_go(self) -> None:
        """Let everything that hangs return; nothing hangs from now on."""
        self.let_go_of_all_but()

    def let_go_of_all_but(self, *names: str) -> None:
        """Let everything that hangs return; from now on only these hang."""
        self.hangs_at = set(names)
        let_go, self._let_go = self._let_go, Gate()
        let_go.set()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.let_go()  # or threads would outlive the test


@pytest.fixture
def patient_reads(host: Host) -> PatientReads[str]:
    return PatientReads(host.list_names, host.read, "the host")


async def look_past(
    patient_reads: PatientReads[str], host: Host, clock: MockClock, *steps: float, hanging: int = 0
) -> Round[str]:
    """Scan once, and move the clock each time that one more thread than `hanging` hangs."""
    looks: list[Round[str]] = []

    async def look() -> None:
        looks.append(await patient_reads.look())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        for number, step in enumerate(steps, hanging + 1):
            await trio.to_thread.run_sync(host.wait_for_hangs, number)
            await jump(clock, step)
    return looks[0]


async def look_past_a_listing(
    patient_reads: PatientReads[str], host: Host, clock: MockClock
) -> None:
    """Scan once while the listing hangs, which it does until the host lets go; the scan gives up."""
    host.hangs_at = {LISTING}
    with pytest.RaisesGroup(HostUnreadable):
        await look_past(patient_reads, host, clock, PATIENCE)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread, which no clock of the test controls."""
    with trio.fail_after(1e6):  # the clock stands still
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_everything_is_read_in_turn(
    patient_reads: PatientReads[str], mock_clock: MockClock
) -> None:
    assert await patient_reads.look() == Round({name: f"{name} was read" for name in THREE})


async def test_a_missing_name_has_no_value(host: Host, mock_clock: MockClock) -> None:
    patient_reads = PatientReads(
        host.list_names, lambda name: None if name == "card_1" else name, "the host"
    )
    assert set((await patient_reads.look()).values) == {"card_0", "card_2"}


async def test_other_names_are_read_while_one_hangs(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    look = await look_past(patient_reads, host, mock_clock, SHARED)
    assert set(look.values) == {"card_0", "card_2"}
    assert (set(look.pending), set(look.hung)) == ({"card_1"}, set())
    assert host.threads == ["card_1"]
    again = await patient_reads.look()
    assert set(again.values) == {"card_0", "card_2"}
    assert host.threads == ["card_1"], "its thread is not replaced"


async def test_a_read_that_does_not_return_counts_as_hung_after_patience(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    await jump(mock_clock, PATIENCE - SHARED - 0.1)
    assert (await patient_reads.look()).hung == set()
    await jump(mock_clock, 0.1)
    look = await patient_reads.look()
    assert (set(look.pending), set(look.hung)) == ({"card_1"}, {"card_1"})


async def test_further_hanging_reads_are_left_sooner(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = set(THREE)
    look = await look_past(patient_reads, host, mock_clock, SHARED, FOLLOWING, FOLLOWING)
    assert look == Round({}, frozenset(THREE))
    assert sorted(host.threads) == sorted(THREE)


async def test_a_slow_thread_that_makes_progress_is_kept(host: Host, mock_clock: MockClock) -> None:
    """Each card takes nearly as long as it may: together they take longer."""
    began = trio.Event()
    token = trio.lowlevel.current_trio_token()
    steps = [Gate() for _ in THREE]

    def read(name: str) -> str:
        token.run_sync_soon(began.set)
        steps[THREE.index(name)].wait()
        return name

    patient_reads = PatientReads(host.list_names, read, "the host")
    looks: list[Round[str]] = []

    async def look() -> None:
        looks.append(await patient_reads.look())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        for step in steps:
            await began.wait()
            began = trio.Event()
            await jump(mock_clock, SHARED - 0.01)
            step.set()
    assert set(looks[0].values) == set(THREE)
    assert looks[0].pending == set()


async def test_a_late_value_is_used_when_it_arrives(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    host.let_go()
    look = await patient_reads.look()
    while look.pending:
        look = await patient_reads.look()
    assert look.values["card_1"] == "card_1 was read"


async def test_a_slow_name_has_its_own_thread_until_it_is_quick(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    host.let_go()
    while (await patient_reads.look()).pending:
        pass  # the thread returns in its own time
    host.hangs_at = {"card_1"}
    look = await patient_reads.look()
    assert set(look.values) >= {"card_0", "card_2"}, "no scan waits for it this time"
    host.wait_for_hangs(2)
    host.let_go()
    while "card_1" not in (look := await patient_reads.look()).values or look.pending:
        pass
    assert look == Round({name: f"{name} was read" for name in THREE})


async def test_a_name_that_has_gone_when_its_thread_returns_is_forgotten(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    gone: list[str] = []
    patient_reads = PatientReads(
        lambda: [name for name in host.list_names() if name not in gone],
        lambda name: value if (value := host.read(name)) and name not in gone else None,
        "the host",
    )
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    gone.append("card_1")
    host.let_go()
    while (look := await patient_reads.look()).pending:
        pass
    assert set(look.values) == {"card_0", "card_2"}


async def test_a_hanging_listing_is_an_error_and_takes_one_thread(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {LISTING}
    for _ in range(3):
        with pytest.RaisesGroup(
            pytest.RaisesExc(HostUnreadable, match="the host takes more than 5 s")
        ):
            await look_past(patient_reads, host, mock_clock, PATIENCE)
    assert host.threads == [LISTING]


async def test_the_names_of_a_late_listing_are_not_used(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    await look_past_a_listing(patient_reads, host, mock_clock)
    host.names = ("card_5",)
    host.let_go()
    look = None
    while look is None:
        try:
            look = await patient_reads.look()
        except HostUnreadable:
            await trio.lowlevel.checkpoint()
    assert set(look.values) == {"card_5"}


async def test_a_name_that_hangs_after_a_late_listing_does_not_delay_the_others(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    """As when a driver releases its lock for all cards but one."""
    await look_past_a_listing(patient_reads, host, mock_clock)
    host.let_go_of_all_but("card_1")
    await trio.to_thread.run_sync(host.wait_for_hangs, 2)
    with pytest.raises(HostUnreadable):
        await patient_reads.look()  # it may go on in a moment
    await jump(mock_clock, SHARED)
    look = await patient_reads.look()
    assert set(look.values) == {"card_0", "card_2"}
    assert (set(look.pending), set(look.hung)) == ({"card_1"}, set())
    await jump(mock_clock, PATIENCE)
    assert (await patient_reads.look()).hung == {"card_1"}
    assert host.threads == [LISTING, "card_1"], "its thread is not replaced"
    host.let_go()
    await until(lambda: not patient_reads._own)
    assert set((await patient_reads.look()).values) == set(THREE)


async def test_a_begun_scan_reports_only_to_a_task_that_asks(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    begun = patient_reads.begin(lambda values: len(values) == len(THREE))
    assert begun is not None
    await settled()
    assert begun.seconds == 0
    assert not begun.finished.is_set()
    assert set((await patient_reads.look(begun)).values) == set(THREE)


async def test_a_begun_scan_that_hangs_is_left_by_the_next_look(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    begun = patient_reads.begin(lambda _values: True)
    assert begun is not None
    await trio.to_thread.run_sync(host.wait_for_hangs, 1)
    await jump(mock_clock, SHARED)
    look = await patient_reads.look(begun)
    assert (set(look.values), look.pending) == ({"card_0", "card_2"}, frozenset({"card_1"}))
    assert patient_reads.begin(lambda _values: True) is None, "a slow name needs a task"


async def test_no_scan_is_begun_while_a_listing_hangs(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    await look_past_a_listing(patient_reads, host, mock_clock)
    assert patient_reads.begin(lambda _values: True) is None
    assert host.threads == [LISTING]


async def test_no_scan_is_begun_before_a_late_value_is_used(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    host.let_go()
    await settled()
    host.hangs_at = {"card_1"}
    await patient_reads.look()  # in a thread of its own, which is quick now
    host.wait_for_hangs(2)
    host.let_go()
    await settled()
    assert patient_reads.begin(lambda _values: True) is None
    assert set((await patient_reads.look()).values) == set(THREE)


async def test_no_scan_is_begun_before_a_bug_in_a_late_read_is_raised(
    host: Host, mock_clock: MockClock
) -> None:
    def read(name: str) -> str:
        host.read(name)
        return {"card_0": "read", "card_2": "read"}[name]

    patient_reads = PatientReads(host.list_names, read, "the host")
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    host.let_go()
    await settled()
    assert patient_reads.begin(lambda _values: True) is None
    with pytest.raises(KeyError):
        await patient_reads.look()


async def test_after_a_stop_of_the_process_a_begun_scan_does_not_count_as_hung(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock
) -> None:
    host.hangs_at = {"card_1"}
    begun = patient_reads.begin(lambda _values: True)
    await trio.to_thread.run_sync(host.wait_for_hangs, 1)
    await jump(mock_clock, 3600)
    looks: list[Round[str]] = []

    async def look() -> None:
        looks.append(await patient_reads.look(begun))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await settled()
        host.let_go()
    assert looks == [Round({name: f"{name} was read" for name in THREE})]


@pytest.mark.parametrize("where", ["card_1", LISTING])
async def test_after_a_stop_of_the_process_nothing_counts_as_hung(
    patient_reads: PatientReads[str], host: Host, mock_clock: MockClock, where: str
) -> None:
    host.hangs_at = {where}
    looks: list[Round[str]] = []

    async def look() -> None:
        looks.append(await patient_reads.look())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.to_thread.run_sync(host.wait_for_hangs, 1)
        await jump(mock_clock, 3600)
        await settled()
        host.let_go()
    assert looks == [Round({name: f"{name} was read" for name in THREE})]


async def test_a_thread_that_cannot_start_is_the_nodes_fault(
    patient_reads: PatientReads[str], mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five bugs would end the daemon, on a node that could not start it again."""

    def fail(*_arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(trio.lowlevel, "start_thread_soon", fail)
        with pytest.raises(HostUnreadable, match=r"can't start new thread: .*pids\.max"):
            await patient_reads.look()
    assert set((await patient_reads.look()).values) == set(THREE)


async def test_a_bug_in_a_late_read_is_raised_too(host: Host, mock_clock: MockClock) -> None:
    def read(name: str) -> str:
        host.read(name)
        if name == "card_1":
            raise KeyError(name)
        return name

    with pytest.raises(KeyError):
        await PatientReads(host.list_names, read, "the host").look()
    patient_reads = PatientReads(host.list_names, read, "the host")
    host.hangs_at = {"card_1"}
    await look_past(patient_reads, host, mock_clock, SHARED)
    host.let_go()

    async def look_until_it_comes() -> None:
        while True:
            await patient_reads.look()

    with pytest.raises(KeyError):
        await look_until_it_comes()
