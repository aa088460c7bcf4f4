"""Entries on their way out of a list: Unhealthy first, left out later.

kubelet 1.36 panics over a device that leaves the list while its `Allocate` is in flight, so an entry
stays, Unhealthy, for `RETIRE_AFTER` after the last time that something kept it: a card that a new
split replaced, one that a pod still holds, one that only the management library knows.
"""

from collections.abc import Iterator
from typing import Final

from biren_plugin.core.model import Device

ALLOCATE_DEADLINE: Final = 2.0
"""How long an `Allocate` may take; `wire.device_plugin` gives it to its server."""
RETIRE_AFTER: Final = ALLOCATE_DEADLINE + 1.0


class Leaving:
    """The entries, by resource and id, and since when nothing keeps each."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[Device, float]] = {}

    def keep(self, device: Device, now: float) -> None:
        """`device`, which must be Unhealthy, stays for `RETIRE_AFTER` from now on."""
        assert not device.healthy
        self._entries[device.resource, device.id] = (device, now)

    def devices(self, now: float) -> Iterator[Device]:
        """The entries that stay; forgets the others."""
        for key, (device, since) in list(self._entries.items()):
            if now - since >= RETIRE_AFTER:
                del self._entries[key]
            else:
                yield device
