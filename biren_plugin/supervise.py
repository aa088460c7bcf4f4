"""When a failed subtree is restarted, and how fast, whatever runs in it.

1. An *expected* error restarts the subtree after a wait that doubles from `first_wait` to
   `longest_wait`, jittered so that subtrees do not restart in step.
2. An `at_once` error restarts the subtree without a wait, and resets the waits. It is not
   a failure: it is neither reported nor logged above DEBUG.
3. A wait ends early when `until_hope` returns: the subtree may be able to work again. After `hurries` restarts
   in a row in less than `first_wait`, for whichever of these reasons, each takes `first_wait` at least.
4. After `quiet` seconds of running, the waits start from the beginning.
5. Any other error is a bug: logged with its traceback, then treated as an expected one; `bugs`
   of them without a quiet time between are raised, and end the process. Open files or memory that have run
   out are not a bug, whichever call they failed.
6. A cause that keeps a subtree from working (`is_working`) is logged once, not at each try.
7. `on_failure` gets the first cause of each failure, a bug before other causes.
8. With `steady`, a run that lasts so many seconds after a logged failure is logged too: what a warning began
   has an end. Subtrees that log their success themselves need none.
9. `Cancelled` passes through untouched. Errors come in groups, several deep: each leaf counts.
"""

import math
import random
from collections.abc import Awaitable, Callable, Iterator

import trio

from biren_plugin.errors import is_limit
from biren_plugin.notice import DEBUG, Notice, say, say_bug
from biren_plugin.records import frozen

Errors = tuple[type[Exception], ...]
_DOUBLINGS = 64  # a greater exponent would only overflow


@frozen
class Pace:
    """How fast a subtree is restarted. Times are seconds."""

    first_wait: float = 0.1
    longest_wait: float = 10.0
    jitter: float = 0.5
    """Each wait is multiplied by a factor between 1 - jitter and 1 + jitter."""
    hurries: int = 5
    quiet: float = 60.0
    bugs: int = 5


async def keep_running(
    run: Callable[[], Awaitable[None]],
    name: str,
    *,
    expected: Errors,
    at_once: Errors = (),
    until_hope: Callable[[], Awaitable[None]] = trio.sleep_forever,
    is_working: Callable[[], bool] = lambda: True,
    on_failure: Callable[[Exception], None] = lambda _cause: None,
    steady: float = math.inf,
    notice: Notice | None = None,
    pace: Pace = Pace(),
    random_number: Callable[[], float] = random.random,
) -> None:
    """Call `run`, again whenever it fails; return when it returns.

    `name` names the subtree in the log. `is_working` returns whether its last run had reached its work.
    `notice` is where failures begin and end. `random_number` returns numbers in [0, 1) for the jitter.
    Raises an `ExceptionGroup` of bugs if there were too many.
    """
    failures = 0
    bugs_in_a_row = 0
    hurries = 0
    notice = notice or Notice()
    while True:
        started = trio.current_time()
        error: ExceptionGroup[Exception] | None = None
        try:
            await _run_noting_the_end(run, name, notice, steady)
        except* Exception as group:  # noqa: BLE001 - sorted below; Cancelled is not an Exception
            error = group
        if error is None:
            return
        if trio.current_time() - started >= pace.quiet:
            failures = bugs_in_a_row = 0
        causes = list(flatten(error))
        cause = _one_line(causes)
        bugs = [
            each for each in causes if not (isinstance(each, expected + at_once) or is_limit(each))
        ]
        if not bugs and all(isinstance(each, at_once) for each in causes):
            failures = 0
            if hurries <= pace.hurries:
                notice.forget()
            say("restarts", f"{name} restarts: {cause}", DEBUG, subtree=name)
            await trio.lowlevel.checkpoint()
        else:
            on_failure((bugs or causes)[0])
            if bugs:
                bugs_in_a_row += 1
                say_bug(f"{name} failed on a bug of the plugin", ExceptionGroup("", bugs), name)
                if bugs_in_a_row >= pace.bugs:
                    raise error
            wait = min(pace.first_wait * 2 ** min(failures, _DOUBLINGS), pace.longest_wait)
            wait *= 1 + pace.jitter * (2 * random_number() - 1)
            failures += 1
            if is_working():
                notice.forget()
            text = f"{name} restarts in {wait:.1f} s: {cause}"
            notice.begin("restarts", text, cause=cause, subtree=name, wait_seconds=round(wait, 1))
            with trio.move_on_after(wait):
                await until_hope()
                failures = 0
        shortest = pace.first_wait * (1 - pace.jitter)
        hurries = hurries + 1 if trio.current_time() - started < shortest else 0
        if hurries > pace.hurries:
            text = f"{name} restarts again and again: {cause}"
            notice.begin("restarts", text, cause=cause, subtree=name, wait_seconds=pace.first_wait)
            await trio.sleep(pace.first_wait)


async def _run_noting_the_end(
    run: Callable[[], Awaitable[None]], name: str, notice: Notice, steady: float
) -> None:
    """Call `run`; if a failure is logged, log its end once the call has lasted `steady` seconds."""
    if steady == math.inf or not notice.has_begun:
        await run()
        return
    async with trio.open_nursery() as nursery:

        async def note() -> None:
            await trio.sleep(steady)
            notice.end("runs_again", f"{name} runs again", subtree=name)

        nursery.start_soon(note)
        await run()
        nursery.cancel_scope.cancel()


def flatten(error: BaseException) -> Iterator[Exception]:
    """Yield the exceptions of class `Exception` in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from flatten(each)
    elif isinstance(error, Exception):
        yield error


def _one_line(causes: list[Exception]) -> str:
    texts = dict.fromkeys(f"{cause}" or type(cause).__name__ for cause in causes)
    return "; ".join(texts)
