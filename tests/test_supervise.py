"""The rules at the top of supervise.py: what is started again, how fast, and what gets through."""

import errno
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.supervise import Pace, flatten, keep_running


class Expected(Exception):
    """What may happen on any node."""


class AtOnce(Exception):
    """What a new start mends."""


class Bug(Exception):
    """What nobody expects."""


PLAIN = Pace(first_wait=1.0, longest_wait=8.0, jitter=0.0, quiet=100.0, bugs=3)


class Subtree:
    """Fails with each of `errors`, after so many seconds of running; then returns."""

    def __init__(self, errors: Iterable[BaseException], *, runs_for: float = 0) -> None:
        self._errors = iter(errors)
        self._runs_for = runs_for
        self.starts: list[float] = []

    async def run(self) -> None:
        """One life."""
        self.starts.append(trio.current_time())
        await trio.sleep(self._runs_for)
        for error in self._errors:
            raise error

    @property
    def waits(self) -> list[float]:
        """Seconds between the end of a run and the next start."""
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return [round(after - before - self._runs_for, 6) for before, after in pairs]


async def keep(
    subtree: Subtree,
    pace: Pace = PLAIN,
    *,
    until_hope: Callable[[], Awaitable[None]] = trio.sleep_forever,
    random_number: Callable[[], float] = lambda: 0.5,
) -> list[float]:
    await keep_running(
        subtree.run,
        "the subtree",
        expected=(Expected, OSError),
        at_once=(AtOnce,),
        until_hope=until_hope,
        pace=pace,
        random_number=random_number,
    )
    return subtree.waits


async def test_a_task_that_returns_is_not_started_again(autojump_clock: MockClock) -> None:
    subtree = Subtree([])
    assert await keep(subtree) == []
    assert len(subtree.starts) == 1


async def test_waits_double_up_to_the_longest(autojump_clock: MockClock) -> None:
    assert await keep(Subtree([Expected()] * 6)) == [1, 2, 4, 8, 8, 8]


async def test_each_wait_is_jittered_both_ways(autojump_clock: MockClock) -> None:
    pace = attrs.evolve(PLAIN, jitter=0.5)
    chances = iter([0.0, 0.5, 0.75, 0.0])
    waits = await keep(Subtree([Expected()] * 4), pace, random_number=lambda: next(chances))
    assert waits == [0.5, 2, 5, 4]


async def test_random_waits_stay_within_the_jitter(
    autojump_clock: MockClock,
) -> None:
    pace = attrs.evolve(PLAIN, jitter=0.5, longest_wait=1)
    subtree = Subtree([Expected()] * 200)
    await keep_running(subtree.run, "the subtree", expected=(Expected,), pace=pace)
    assert all(0.5 <= wait <= 1.5 for wait in subtree.waits)
    assert len(set(subtree.waits)) > 100


async def test_thousands_of_failures_are_still_expected(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    waits = await keep(Subtree([Expected()] * 3000))
    assert waits[-1] == 8


async def test_an_at_once_error_restarts_at_once(autojump_clock: MockClock) -> None:
    assert await keep(Subtree([AtOnce()] * 5)) == [0] * 5


@pytest.mark.parametrize(("error", "lines"), [(AtOnce, 1), (Expected, 15)])
async def test_a_subtree_that_fails_at_once_again_and_again_does_not_spin(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: type[Exception], lines: int
) -> None:
    caplog.set_level(logging.INFO)
    subtree = Subtree([error("torn")] * 15)
    waits = await keep(subtree, until_hope=trio.lowlevel.checkpoint)
    assert waits == [0] * 5 + [1] * 10
    assert len(caplog.records) == lines
    assert "torn" in caplog.text


async def test_a_subtree_that_works_for_a_while_may_restart_at_once_forever(
    autojump_clock: MockClock,
) -> None:
    assert await keep(Subtree([AtOnce()] * 20, runs_for=1)) == [0] * 20


async def test_a_run_that_lasted_ends_a_row_of_restarts_at_once(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    async def run() -> None:
        starts.append(trio.current_time())
        if len(starts) in (4, 10):
            await trio.sleep(10)
        if len(starts) < 14:
            raise AtOnce

    await keep_running(run, "the subtree", expected=(), at_once=(AtOnce,), pace=PLAIN)
    assert [round(later - start) for start, later in itertools.pairwise(starts)] == [
        *[0] * 3, 10, *[0] * 5, 10, *[0] * 3,
    ], "in one row, these would be more than `hurries`"  # fmt: skip


async def test_a_cause_is_logged_again_after_a_restart_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([Expected("no room"), AtOnce("a new kubelet"), Expected("no room")])

    async def run() -> None:
        for error in errors:
            raise error

    with caplog.at_level(logging.INFO):
        await keep_running(
            run, "it", expected=(Expected,), at_once=(AtOnce,), is_working=lambda: False, pace=PLAIN
        )
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["it restarts in 1.0 s: no room"] * 2


async def test_a_loop_that_returns_soon_after_a_failure_is_not_logged_as_running_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    subtree = Subtree([Expected("full")], runs_for=1.0)
    with caplog.at_level(logging.INFO):
        await keep_running(
            subtree.run, "the loop", expected=(Expected,), is_working=lambda: False,
            steady=5.0, pace=PLAIN,
        )  # fmt: skip
    assert trio.current_time() - subtree.starts[-1] == 1.0
    assert [record.getMessage() for record in caplog.records] == [
        "the loop restarts in 1.0 s: full"
    ]


async def test_starting_at_once_resets_the_waits(autojump_clock: MockClock) -> None:
    errors = [Expected(), Expected(), Expected(), AtOnce(), Expected(), Expected()]
    assert await keep(Subtree(errors)) == [1, 2, 4, 0, 1, 2]


async def test_one_error_among_several_that_is_not_at_once_makes_it_wait(
    autojump_clock: MockClock,
) -> None:
    assert await keep(Subtree([ExceptionGroup("", [AtOnce(), Expected()])])) == [1]


async def test_a_wait_ends_early_when_the_missing_part_is_back(autojump_clock: MockClock) -> None:
    async def until_hope() -> None:
        await trio.sleep(3)

    # Waits would be 1, 2, 4, 8: the third is cut to 3, and the next begins anew.
    assert await keep(Subtree([Expected()] * 5), until_hope=until_hope) == [1, 2, 3, 1, 2]


async def test_a_quiet_time_resets_the_waits(autojump_clock: MockClock) -> None:
    assert await keep(Subtree([Expected()] * 3, runs_for=100)) == [1, 1, 1]
    assert await keep(Subtree([Expected()] * 3, runs_for=99)) == [1, 2, 4]


async def test_a_bug_is_logged_with_its_traceback_and_started_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert await keep(Subtree([Bug("off by one")])) == [1]
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert "the subtree" in record.getMessage()
    assert "off by one" in caplog.text
    assert "Traceback" in caplog.text


async def test_bugs_in_a_row_are_raised(autojump_clock: MockClock) -> None:
    subtree = Subtree([Bug("one"), Expected(), Bug("two"), ExceptionGroup("", [Bug("three")])])
    with pytest.raises(ExceptionGroup) as caught:
        await keep(subtree)
    assert caught.group_contains(Bug, match="three")
    assert subtree.waits == [1, 2, 4], "expected errors between them are no quiet time"


async def test_bugs_with_a_quiet_time_between_are_not_raised(
    autojump_clock: MockClock,
) -> None:
    assert await keep(Subtree([Bug()] * 10, runs_for=100)) == [1] * 10


async def test_a_bug_counts_however_many_expected_errors_come_with_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = ExceptionGroup("", [Expected(), ExceptionGroup("", [AtOnce(), Bug("hidden")])])
    with pytest.raises(ExceptionGroup):
        await keep(Subtree([hidden] * 3))
    assert "hidden" in caplog.text


async def test_a_subclass_of_an_expected_error_is_expected(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert await keep(Subtree([FileNotFoundError("kubelet.sock")] * 5)) == [1, 2, 4, 8, 8]
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_open_files_that_have_run_out_are_not_a_bug(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    error = OSError(errno.EMFILE, "Too many open files", "/usr/lib/python3/imported.py")
    causes = [error, ExceptionGroup("", [error])] * 3
    subtree = Subtree(causes)
    await keep_running(
        subtree.run, "x", expected=(Expected,), pace=PLAIN, random_number=lambda: 0.5
    )
    assert subtree.waits == [1, 2, 4, 8, 8, 8]
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_each_restart_is_one_line_that_says_why(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    causes = [Expected("the kubelet refused"), Expected("the kubelet refused"), Expected()]
    with caplog.at_level(logging.INFO):
        await keep(Subtree([ExceptionGroup("", causes), AtOnce("a new kubelet.sock")]))
    lines = [each.getMessage() for each in caplog.records]
    assert lines == [
        "the subtree restarts in 1.0 s: the kubelet refused; Expected",
    ]


@pytest.mark.parametrize("during", ["run", "wait"])
async def test_cancellation_passes_through(autojump_clock: MockClock, during: str) -> None:
    subtree = Subtree([Expected()] * 100, runs_for=10 if during == "run" else 0.1)
    with trio.move_on_after(0.5) as scope:
        await keep(subtree)
    assert scope.cancelled_caught
    assert len(subtree.starts) == 1


async def test_cancellation_reaches_a_subtree_that_fails_without_a_checkpoint() -> None:
    starts = 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts < 100:
            raise AtOnce

    with trio.CancelScope() as scope:
        scope.cancel()
        await keep_running(run, "the subtree", expected=(), at_once=(AtOnce,))
    assert starts == 1


async def test_an_error_on_the_way_out_does_not_stop_a_cancellation(
    autojump_clock: MockClock,
) -> None:
    starts = 0

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Expected

    async def run() -> None:
        nonlocal starts
        starts += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1) as scope:
        await keep_running(run, "the subtree", expected=(Expected,), pace=PLAIN)
    assert scope.cancelled_caught
    assert starts == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_a_base_exception_passes_through(
    autojump_clock: MockClock, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        await keep(Subtree([error]))


async def test_a_failing_subtree_leaves_another_alone(autojump_clock: MockClock) -> None:
    failing, steady = Subtree([Expected()] * 3), Subtree([], runs_for=50)
    async with trio.open_nursery() as nursery:
        for subtree in (failing, steady):
            nursery.start_soon(keep, subtree)
    assert (len(failing.starts), len(steady.starts)) == (4, 1)


def test_leaves_are_found_however_deep_and_only_once() -> None:
    def groups(depth: int) -> Iterator[BaseException]:
        yield Expected(f"{depth}")
        if depth:
            yield BaseExceptionGroup("", list(groups(depth - 1)))

    found = flatten(BaseExceptionGroup("", [*groups(5), KeyboardInterrupt()]))
    assert [str(each) for each in found] == ["5", "4", "3", "2", "1", "0"]


async def test_a_cause_that_keeps_it_from_working_is_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter(
        [Expected("no room"), Expected("no room"), Expected("other"), Expected("no room")]
    )

    async def run() -> None:
        if (error := next(errors, None)) is not None:
            raise error

    with caplog.at_level(logging.WARNING):
        await keep_running(run, "the subtree", expected=(Expected,), is_working=lambda: False)
    texts = [record.getMessage().partition(" s: ")[2] for record in caplog.records]
    assert texts == ["no room", "other", "no room"]


async def test_each_failure_is_reported_with_its_first_cause_bugs_first(
    autojump_clock: MockClock,
) -> None:
    told: list[Exception] = []
    errors = [Expected("a"), ExceptionGroup("", [Expected("b"), Bug("c")])]
    await keep_running(
        Subtree(errors).run,
        "the subtree",
        expected=(Expected,),
        on_failure=told.append,
        pace=PLAIN,
    )
    assert [str(each) for each in told] == ["a", "c"]


async def test_a_restart_at_once_is_not_a_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failures: list[Exception] = []
    await keep_running(
        Subtree([AtOnce("a new kubelet"), Expected("no disk")]).run,
        "the subtree",
        expected=(Expected,),
        at_once=(AtOnce,),
        on_failure=failures.append,
    )
    assert [f"{failure}" for failure in failures] == ["no disk"]
    assert "a new kubelet" not in caplog.text


@pytest.mark.parametrize(
    ("errors", "lines"),
    [
        ([], []),
        ([Expected("full")], ["the loop restarts in 1.0 s: full", "the loop runs again"]),
        ([Expected("full")] * 3, ["the loop restarts in 1.0 s: full", "the loop runs again"]),
        ([Expected("full"), Expected("gone")],
         ["the loop restarts in 1.0 s: full", "the loop restarts in 2.0 s: gone", "the loop runs again"]),
    ],
    ids=["no failure", "one", "the same again", "another"],
)  # fmt: skip
async def test_a_logged_failure_has_an_end_once_the_loop_has_run_steadily(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    errors: list[Exception],
    lines: list[str],
) -> None:
    caplog.set_level(logging.INFO)
    left = iter(errors)

    async def loop() -> None:
        for error in left:
            raise error
        await trio.sleep_forever()

    with trio.move_on_after(1000):
        await keep_running(
            loop, "the loop", expected=(Expected,), is_working=lambda: False, steady=5.0, pace=PLAIN
        )
    assert [each.getMessage() for each in caplog.records] == lines
    assert all(
        each.levelno == logging.INFO for each in caplog.records if "again" in each.getMessage()
    )
