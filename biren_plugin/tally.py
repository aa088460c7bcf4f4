"""What has happened since the daemon started, counted where it happens and read by the metrics.

1. Counting never waits, fails or grows without bound: keys are resources, names of loops and
   subtrees, and classes of errors.
2. Whoever counts knows nothing of metrics; whoever reads changes nothing.
"""

import time
from bisect import bisect_left
from collections import Counter
from typing import Final, Literal

import attrs
import trio

Outcome = Literal["answered", "refused", "failed"]

CALL_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0)
"""Upper bounds in seconds: a choice among 24 cards takes 2 ms, the deadline is at 2 s."""


@attrs.define
class Latency:
    """How long calls took: how many up to each of `CALL_BOUNDS`, and beyond."""

    counts: list[int] = attrs.Factory(lambda: [0] * (len(CALL_BOUNDS) + 1))
    """Not cumulative; the last is of those beyond all bounds."""
    total: float = 0.0
    """Seconds, of all calls together."""

    def add(self, seconds: float) -> None:
        """One call."""
        self.counts[bisect_left(CALL_BOUNDS, seconds)] += 1
        self.total += seconds


@attrs.frozen
class Turn:
    """The last turn of a loop that looks at something."""

    at: float
    """When it ended, in seconds of trio's clock."""
    seconds: float
    """How long it took, without the wait for the next."""


@attrs.define
class Tally:
    """All that is counted in one daemon."""

    registrations: Counter[str] = attrs.Factory(Counter)
    """That the kubelet took and watched, by resource."""
    restarts: Counter[tuple[str, str]] = attrs.Factory(Counter)
    """By subtree and the class of the error that ended it."""
    allocations: Counter[tuple[str, Outcome]] = attrs.Factory(Counter)
    """By resource."""
    allocating: Latency = attrs.Factory(Latency)
    preferring: Latency = attrs.Factory(Latency)
    lists_sent: dict[str, float] = attrs.Factory(dict)
    """When the last list went out, in seconds since 1970, by resource."""
    turns: dict[str, Turn] = attrs.Factory(dict)
    """By name of the loop."""

    def registered(self, resource: str) -> None:
        """The kubelet took a registration and watches."""
        self.registrations[resource] += 1

    def restarted(self, subtree: str, cause: Exception) -> None:
        """A subtree failed and will start again."""
        self.restarts[subtree, type(cause).__name__] += 1

    def list_sent(self, resource: str) -> None:
        """A list was written to the kubelet's stream."""
        self.lists_sent[resource] = time.time()

    def turned(self, loop: str, seconds: float) -> None:
        """A loop has made a turn."""
        self.turns[loop] = Turn(trio.current_time(), seconds)
