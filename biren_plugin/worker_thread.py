"""Makes blocking calls for a task that must not block: in a thread, one call after another.

1. A call that hangs, as on a dying disk, holds up the calls behind it and nothing else.
2. A cancelled caller leaves its call behind, which still keeps its turn. What `acquire` has opened is
   then released in the same thread, also if another call has the thread by then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

import outcome
import trio

from biren_plugin.errors import NoThread, why_no_thread

T = TypeVar("T")
U = TypeVar("U")

PATIENCE: Final = 5.0
"""Seconds after which a call counts as hanging."""
LEAVE_DEADLINE: Final = 1.0
"""Seconds that a cancelled caller waits for the release of what its call has opened."""


class WorkerThread:
    """Makes calls in turn."""

    def __init__(self) -> None:
        self._room = trio.CapacityLimiter(1)
        self._opened: set[_Handing[Any]] = set()
        """What was opened, and is neither taken nor released yet."""

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call`. Raises what `call` raises, and `NoThread`."""
        with starting_thread():
            done = await trio.to_thread.run_sync(
                partial(self._make, call), abandon_on_cancel=True, limiter=self._room
            )
        return done.unwrap()

    def _make(self, call: Callable[[], T]) -> outcome.Outcome[T]:
        """Make one call, and release what was left until its end. Runs in the thread."""
        done = outcome.capture(call)
        for each in [each for each in self._opened.copy() if each.is_left]:
            self._opened.discard(each)
            each.release()
        return done

    async def run_or(self, call: Callable[[], T], otherwise: U) -> T | U:
        """Return the result of `call`, or `otherwise` if it hangs, or no thread can be started."""
        with trio.move_on_after(PATIENCE), suppress(NoThread):
            return await self.run(call)
        return otherwise

    async def acquire(self, call: Callable[[], T], release: Callable[[T], object]) -> T:
        """Return what `call` has opened; the caller then owns it. Raises as `run` does.

        If the caller is cancelled, `release` gets what `call` opens, at once or whenever `call` returns.
        """
        handing = _Handing(call, release)
        try:
            opened = await self.run(partial(self._open, handing))
        except trio.Cancelled:
            handing.is_left = True
            with trio.move_on_after(LEAVE_DEADLINE, shield=True), suppress(NoThread):
                await self.run(_do_nothing)  # after `call`, which may still be under way
            raise
        self._opened.discard(handing)
        return opened

    def _open(self, handing: "_Handing[T]") -> T:
        opened = handing.open()
        self._opened.add(handing)  # a call that never has its turn leaves nothing here
        return opened

    async def wait_idle(self) -> None:
        """Return when no call is under way, nor one that was left behind."""
        async with self._room:
            pass


def _do_nothing() -> None:
    """A call for the sake of its turn."""


class _Handing(Generic[T]):
    """What a call opens, on its way to the caller. The thread, whose calls follow each other, opens and releases."""

    def __init__(self, call: Callable[[], T], release: Callable[[T], object]) -> None:
        self.is_left = False
        """Whether the caller was cancelled."""
        self._call = call
        self._release = release
        self._opened: list[T] = []

    def open(self) -> T:
        opened = self._call()
        self._opened.append(opened)
        return opened

    def release(self) -> None:
        for each in self._opened:
            self._release(each)


@contextmanager
def starting_thread() -> Iterator[None]:
    """Raise `NoThread` if trio cannot start a thread, as it also does for the look-up of a name."""
    try:
        yield
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise NoThread(why_no_thread(error)) from error
