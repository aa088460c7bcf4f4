"""Makes blocking calls for a task that must not block: in a thread, one call after another.

A call that hangs, as on a dying disk, holds up the calls behind it and nothing else.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import outcome
import trio

from biren_plugin.errors import NoThread

T = TypeVar("T")


class WorkerThread:
    """Makes calls in turn; a cancelled caller abandons its call, which still keeps its turn."""

    def __init__(self) -> None:
        self._room = trio.CapacityLimiter(1)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call`. Raises what `call` raises, and `NoThread`."""
        try:
            done = await trio.to_thread.run_sync(
                partial(outcome.capture, call), abandon_on_cancel=True, limiter=self._room
            )
        except RuntimeError as error:  # from starting the thread: errors of `call` are captured
            raise NoThread(
                f"{error}: processes have run out on the node, or in the pod's cgroup (pids.max)"
            ) from error
        return done.unwrap()

    async def wait_idle(self) -> None:
        """Return when no call is under way, nor one that was left behind."""
        async with self._room:
            pass
