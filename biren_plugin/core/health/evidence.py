"""What a probe is given, and what it yields: the evidence on one card at one moment, and symptoms."""

from typing import Final, NamedTuple

import attrs

from biren_plugin.core.model import Device
from biren_plugin.core.parse.brml import CardReading, LibraryStatus
from biren_plugin.core.parse.card import Card
from biren_plugin.records import frozen, mutable


class Symptom(NamedTuple):
    """A fault that a probe found."""

    text: str
    """A sentence, with advice."""
    severe: bool
    """Whether the symptom puts the card out of service; otherwise it is a warning."""


def severe(text: str) -> Symptom:
    """Return a symptom that puts the card out of service."""
    return Symptom(text, severe=True)


def warning(text: str) -> Symptom:
    """Return a symptom with which the card stays in service."""
    return Symptom(text, severe=False)


RISE_HOLD: Final = 10.0
"""Seconds for which a risen counter is a finding: by then the counters of all cards have been read."""


class Rising:
    """One counter of one card: whether it has risen recently."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._quiet_at = 0
        self._rose: float | None = None

    def risen_above(self, value: int | None, now: float) -> int | None:
        """Return the counter before its last rise, if that was less than `RISE_HOLD` ago, else None.

        The first value, and a value that a reset lowered, is a new starting point.
        """
        if value is not None:
            if self._last is not None and value > self._last:
                if not self._holds(now):
                    self._quiet_at = self._last
                self._rose = now
            self._last = value
        return self._quiet_at if self._holds(now) else None

    def _holds(self, now: float) -> bool:
        return self._rose is not None and now - self._rose < RISE_HOLD


@mutable
class History:
    """What is remembered of one card between readings."""

    aer_fatal: Rising = attrs.Factory(Rising)
    aer_nonfatal: Rising = attrs.Factory(Rising)
    ecc: Rising = attrs.Factory(Rising)
    widest: int = 0
    """The greatest number of lanes that its PCIe link has had."""
    most_links: int = 0
    """The greatest number of links to other GPUs that were up at once."""


@frozen
class Evidence:
    """One card at one moment, as shown by every source."""

    device: Device
    history: History
    now: float
    module_gone: bool = False
    """Whether the driver's module was loaded earlier and is not loaded now."""
    library_hung: bool = False
    library_knows: bool = True
    """Whether the library knows the card; True also without a library."""
    reading: CardReading | None = None
    unhealthy_on: LibraryStatus = LibraryStatus.CRITICAL

    @property
    def card(self) -> Card:
        """Return the card."""
        return self.device.card
