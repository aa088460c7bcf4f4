"""When a card that was unhealthy returns to service.

1. A card is out of service while something severe is found, and for a steady time after that, in
   which it was looked at all along.
2. A card that falls ill again within `FLAP_MEMORY` of its return flaps: it must be well for twice as
   long each time, up to `LONGEST`.
3. What a probe said that has become suspect itself is taken back at once, and counts for nothing.

Times are seconds.
"""

from collections.abc import Collection, Sequence
from typing import Final

from biren_plugin.core.health.probes import Finding

FLAP_MEMORY: Final = 3600.0
LONGEST: Final = 600.0
_DOUBLINGS: Final = 16  # more would only overflow


class Recovery:
    """What one card has been through; `steady` is the shortest steady time."""

    def __init__(self, steady: float) -> None:
        self._steady = steady
        self._ill: tuple[Finding, ...] = ()
        """What put it out of service; empty while it is in service."""
        self._well_since: float | None = None
        self._returned: float | None = None
        self._relapses = 0

    def update(
        self, severe: Sequence[Finding], suspects: Collection[str], now: float
    ) -> tuple[str, ...]:
        """Why the card is out of service at `now`; empty if it is in service.

        `severe` is what is found and counts; `suspects` are probes that are not believed.
        """
        if severe:
            if not self._ill:
                flaps = self._returned is not None and now - self._returned < FLAP_MEMORY
                self._relapses = self._relapses + 1 if flaps else 0
            self._ill, self._well_since = tuple(severe), None
            return tuple(finding.text for finding in severe)
        if not self._ill:
            return ()
        if all(finding.probe in suspects for finding in self._ill):
            self._ill = ()
            return ()
        if self._well_since is None:
            self._well_since = now
        wait = self._wait()
        if now - self._well_since >= wait:
            self._ill, self._returned = (), now
            return ()
        again = f", having come back {_times(self._relapses)} before" if self._relapses else ""
        causes = "; ".join(finding.text for finding in self._ill)
        return (
            f"it is well again and returns to service once it has been so for {wait:g} s{again} "
            f"(it was: {causes})",
        )

    def lose_sight(self) -> None:
        """Nobody looks at the card now: its steady time starts again when somebody does."""
        self._well_since = None

    def _wait(self) -> float:
        longer = self._steady * float(2 ** min(self._relapses, _DOUBLINGS))
        return max(self._steady, min(longer, LONGEST))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
