"""Ends a test that hangs, in real time: prints its name, every trio task and every thread, and exits.

A test whose clock is a mock cannot end itself: its deadlines stand still with the clock. The process
exits, since a hanging thread or event loop would spoil the tests after it; under pytest-xdist the other
tests go on in a new worker.
"""

import faulthandler
import gc
import os
import sys
import threading
import traceback
from collections.abc import Generator
from functools import partial
from typing import Final, TextIO

import pytest
from trio.lowlevel import Task

LIMIT: Final = 120.0
"""Seconds for one test, with its fixtures. `@pytest.mark.time_limit(seconds)` sets another."""

_STDERR = pytest.StashKey[TextIO]()


def pytest_configure(config: pytest.Config) -> None:
    """Keeps a copy of standard error, which pytest captures while a test runs."""
    config.addinivalue_line(
        "markers", f"time_limit(seconds): end the process after so long instead of {LIMIT:g} s"
    )
    copy = os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w")
    config.stash[_STDERR] = copy
    config.add_cleanup(copy.close)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Runs one test within its limit."""
    marker = item.get_closest_marker("time_limit")
    seconds = float(marker.args[0]) if marker is not None else LIMIT
    timer = threading.Timer(
        seconds, partial(_give_up, item.nodeid, seconds, item.config.stash[_STDERR])
    )
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


def _give_up(test: str, seconds: float, stderr: TextIO) -> None:
    print(f"\n{test} hangs: it has run for more than {seconds:g} s", file=stderr)
    for task in [each for each in gc.get_objects() if isinstance(each, Task)]:
        print(f"\nTask {task.name}:", file=stderr)
        frames = traceback.StackSummary.extract(task.iter_await_frames())
        print("".join(frames.format()), end="", file=stderr)
    print("\nThreads:", file=stderr, flush=True)
    faulthandler.dump_traceback(stderr, all_threads=True)
    os._exit(1)
