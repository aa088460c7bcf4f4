"""When a card that was unhealthy returns to service.

1. A card is out of service while it has a severe fault, and for a steady time afterwards during which it
   was checked continuously.
2. A card that fails again within `FLAP_MEMORY` of its return flaps: its steady time doubles each time, up
   to `LONGEST`.
3. Findings of a probe that becomes suspect itself are withdrawn at once.

Times are seconds.
"""

from collections.abc import Collection, Sequence
from typing import Final

from biren_plugin.core.health.probes import Finding, Probe

STEADY: Final = 30.0
"""The default of `--recover-after`."""
FLAP_MEMORY: Final = 3600.0
LONGEST: Final = 600.0
_DOUBLINGS: Final = 16  # a greater exponent would only overflow


class Recovery:
    """The faults of one card over time; `steady` is the shortest steady time, in seconds."""

    def __init__(self, steady: float) -> None:
        self._steady = steady
        self._faults: tuple[Finding, ...] = ()
        """The faults that put the card out of service; empty while it is in service."""
        self._healthy_since: float | None = None
        self._returned: float | None = None
        self._relapses = 0

    def update(
        self, severe: Sequence[Finding], suspects: Collection[Probe], now: float
    ) -> tuple[str, ...]:
        """Return why the card is out of service at `now`; empty if it is in service.

        `severe` are the findings that count; `suspects` are probes that do not count.
        """
        if severe:
            if not self._faults:
                flaps = self._returned is not None and now - self._returned < FLAP_MEMORY
                self._relapses = self._relapses + 1 if flaps else 0
            self._faults, self._healthy_since = tuple(severe), None
            return _texts(severe)
        if not self._faults:
            return ()
        if all(finding.probe in suspects for finding in self._faults):
            self._faults = ()
            return ()
        if self._healthy_since is None:
            self._healthy_since = now
        wait = self._wait()
        if now - self._healthy_since >= wait:
            self._faults, self._returned = (), now
            return ()
        again = f", as it failed again {_times(self._relapses)}" if self._relapses else ""
        causes = "; ".join(_texts(self._faults))
        return (
            f"it has recovered and returns to service after {wait:g} s without a fault{again} "
            f"(was: {causes})",
        )

    @property
    def is_waiting(self) -> bool:
        """Return whether the faults are over, and only the steady time keeps the card out of service."""
        return self._healthy_since is not None and bool(self._faults)

    def lose_sight(self) -> None:
        """Note that the card is not checked at present: its steady time starts again afterwards."""
        self._healthy_since = None

    def _wait(self) -> float:
        longer = self._steady * float(2 ** min(self._relapses, _DOUBLINGS))
        return max(self._steady, min(longer, LONGEST))


def _texts(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return the reasons; the same text from several probes is one reason."""
    return tuple(dict.fromkeys(finding.text for finding in findings))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
