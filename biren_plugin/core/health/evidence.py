"""What is known of one card at one moment, and what has to be remembered to see that something changed."""

from typing import Final

import attrs

from biren_plugin.core.model import Device
from biren_plugin.core.parse.brml import CardReading, LibraryStatus
from biren_plugin.core.parse.card import Card

RISE_HOLD: Final = 10.0
"""Seconds for which a counter that rose is a finding: the counters of all cards are read by then."""


class Rising:
    """One counter of one card: whether it has risen recently."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._quiet_at = 0
        self._rose: float | None = None

    def risen_above(self, value: int | None, now: float) -> int | None:
        """The counter before it last rose, if that is less than `RISE_HOLD` ago, else None.

        The first value is the starting point, and so is a value that a reset lowered.
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


@attrs.define
class History:
    """What is remembered of one card from reading to reading."""

    aer_fatal: Rising = attrs.Factory(Rising)
    aer_nonfatal: Rising = attrs.Factory(Rising)
    ecc: Rising = attrs.Factory(Rising)
    widest: int = 0
    """The most lanes that its PCIe link has had."""


@attrs.frozen
class Evidence:
    """One card as every source shows it at one moment."""

    device: Device
    history: History
    now: float
    module_gone: bool = False
    """Whether the driver's module was loaded earlier and is not loaded now."""
    library_hung: bool = False
    library_knows: bool = True
    """Whether the library knows the card; True also where there is no library."""
    reading: CardReading | None = None
    unhealthy_on: LibraryStatus = LibraryStatus.CRITICAL

    @property
    def card(self) -> Card:
        """The card."""
        return self.device.card
