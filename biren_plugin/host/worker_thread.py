"""Blocking calls for one who must not block: in a thread, one after another, none of them waited for.

A call that hangs, as on a dying disk, holds up those behind it, and nobody else.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import outcome
import trio

from biren_plugin.errors import NoThread

T = TypeVar("T")


class WorkerThread:
    """Makes calls in turn; whoever is cancelled leaves its call behind, which still counts."""

    def __init__(self) -> None:
        self._room = trio.CapacityLimiter(1)

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns. Raises what it raises, and `NoThread`."""
        try:
            done = await trio.to_thread.run_sync(
                partial(outcome.capture, call), abandon_on_cancel=True, limiter=self._room
            )
        except RuntimeError as error:  # of the thread's start: what `call` raises is captured
            raise NoThread(
                f"{error}: processes have run out on the node, or in the pod's cgroup (pids.max)"
            ) from error
        return done.unwrap()
