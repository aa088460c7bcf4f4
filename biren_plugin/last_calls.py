"""Calls that a stopping daemon still answers, because cut off they would cost their pod more than the wait.

The kubelet repeats a failed Prepare only at the pod's periodic sync, 60 to 90 s later, whatever the error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

PATIENCE: Final = 7.0
"""Seconds: with the end of the sockets it fits into the pod's `terminationGracePeriodSeconds`, 10."""


class LastCalls:
    """The calls under way."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a call, for as long as the block."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._waiting.unpark_all()

    async def ended(self) -> None:
        """Return when no call is under way."""
        while self._count:
            await self._waiting.park()
