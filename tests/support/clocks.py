"""Moves a mock clock only while no thread is running.

A task that waits for a thread counts as blocked, so neither `wait_all_tasks_blocked` nor a clock that
jumps by itself knows of the thread: a jump passes the deadline of work that is about to finish.

1. Tests call `jump` and `settled` here, never `MockClock.jump`.
2. `autojump_clock` is this module's, through `tests/conftest.py`.
3. A thread that a test makes hang waits at a `Gate`. A thread at a closed gate is not at work; it is
   again from the moment that the gate opens.
4. The thread that waits for the kubelet directory's lock waits for another process: it is never at work.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import attrs
import outcome
import trio
from trio._core import _thread_cache
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.device_plugin.folder_lock import WAITING_THREAD

T = TypeVar("T")


@attrs.define(eq=False)
class _Job:
    """What one thread does for one `trio.run`."""

    token: trio.lowlevel.TrioToken | None
    held: bool = False


class _Jobs:
    """The threads at work, for each `trio.run`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.begun = 0
        """How many jobs have begun, or gone on."""
        self.ended = 0
        """How many have ended, or been held."""
        self._jobs: set[_Job] = set()
        self._waiting: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []

    def begin(self) -> _Job:
        token = None
        with suppress(RuntimeError):  # not in a trio.run: no clock depends on it
            token = trio.lowlevel.current_trio_token()
        job = _Job(token)
        with self.lock:
            self.begun += 1
            self._jobs.add(job)
        return job

    def end(self, job: _Job) -> None:
        with self.lock:
            self._jobs.discard(job)
            self.ended += 1
            self._wake()

    def hold(self, job: _Job) -> None:
        with self.lock:
            job.held = True
            self.ended += 1
            self._wake()

    def go_on(self, job: _Job) -> None:
        with self.lock:
            job.held = False
            self.begun += 1

    def at_work(self) -> int:
        """How many threads work for the `trio.run` that asks."""
        token = trio.lowlevel.current_trio_token()
        with self.lock:
            return sum(job.token is token and not job.held for job in self._jobs)

    async def wait_for_fewer_than(self, count: int) -> None:
        """Returns when fewer threads are at work."""
        while True:
            event = trio.Event()
            with self.lock:
                if self.at_work() < count:
                    return
                self._waiting.append((trio.lowlevel.current_trio_token(), event))
            await event.wait()

    def _wake(self) -> None:
        for token, event in self._waiting:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)
        self._waiting.clear()


_JOBS = _Jobs()


class _CountedThreads(_thread_cache.ThreadCache):
    """Where trio takes its threads from, `to_thread` and `start_thread_soon` alike."""

    __slots__ = ()
    current: ClassVar = threading.local()

    def start_thread_soon(
        self,
        fn: Callable[[], T],
        deliver: Callable[[outcome.Outcome[T]], object],
        name: str | None = None,
    ) -> None:
        job = _JOBS.begin()
        if name == WAITING_THREAD:
            _JOBS.hold(job)

        def run() -> T:
            self.current.job = job
            try:
                return fn()
            finally:
                del self.current.job

        def deliver_and_end(result: outcome.Outcome[T]) -> None:
            try:
                deliver(result)
            finally:
                _JOBS.end(job)  # last: once no thread is at work, the result has been delivered

        try:
            super().start_thread_soon(run, deliver_and_end, name)
        except BaseException:
            _JOBS.end(job)
            raise


_thread_cache.THREAD_CACHE = _CountedThreads()


class Gate:
    """As `threading.Event`, for what a test makes hang: a thread that waits here is not at work."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._held: set[_Job] = set()

    def is_set(self) -> bool:
        """Whether the gate is open."""
        return self._event.is_set()

    def set(self) -> None:
        """Open the gate; from now on the threads that waited here are at work."""
        with _JOBS.lock:
            self._event.set()
            for job in self._held:
                _JOBS.go_on(job)
            self._held.clear()

    def clear(self) -> None:
        """Close the gate."""
        self._event.clear()

    def wait(self) -> None:
        """Block until the gate is open."""
        job: _Job | None = getattr(_CountedThreads.current, "job", None)
        with _JOBS.lock:
            if self._event.is_set():
                return
            if job is not None:
                self._held.add(job)
                _JOBS.hold(job)
        self._event.wait()


def patience() -> float:
    """Return the seconds of trio's clock, which runs by itself, that are a minute of real time.

    It is the limit for whatever must not hang: on a fast clock, a busy machine needs many of its seconds.
    """
    clock = trio.lowlevel.current_clock()
    return 60.0 * (clock.rate if isinstance(clock, MockClock) else 1.0)


async def settled(*, hanging: int = 0) -> None:
    """Return when every task is blocked and no thread is running.

    `hanging`: how many threads hang somewhere else than at a `Gate`.
    """
    while True:
        await _JOBS.wait_for_fewer_than(hanging + 1)
        begun = _JOBS.begun
        await wait_all_tasks_blocked()
        if begun == _JOBS.begun and _JOBS.at_work() <= hanging:
            return


async def jump(clock: MockClock, seconds: float, *, hanging: int = 0) -> None:
    """Move the clock once everything has settled."""
    await settled(hanging=hanging)
    clock.jump(seconds)


def patient_autojump_clock() -> MockClock:
    """A clock that jumps to the next deadline when everything has settled."""
    clock = MockClock(autojump_threshold=0)
    jump_ahead = clock._autojump
    ended = 0

    def jump_unless_at_work(*_: Any) -> None:
        nonlocal ended
        if _JOBS.at_work():
            time.sleep(0.001)  # trio asks again at once: leaves the processor to the thread
        elif ended != _JOBS.ended:
            # It may have ended after trio looked for events, its own among them: trio looks again.
            ended = _JOBS.ended
        else:
            jump_ahead()

    clock._autojump = jump_unless_at_work  # type: ignore[method-assign]
    return clock
