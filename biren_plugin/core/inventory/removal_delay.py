"""Devices and resources that are retired: Unhealthy or empty first, left out later.

kubelet 1.36 panics if a device leaves the list while its `Allocate` is in flight. So a device stays
listed, Unhealthy, for `RETIRE_AFTER` after the last reason to keep it: a new split replaced its card, a
pod still holds the card, or only the management library knows it.
"""

from collections.abc import Iterator
from typing import Final

from biren_plugin.core.model import Device

ALLOCATE_DEADLINE: Final = 2.0
"""Seconds that an `Allocate` may take; `wire.device_plugin` passes this to its server."""
RETIRE_AFTER: Final = ALLOCATE_DEADLINE + 1.0
EMPTY_LINGER: Final = 1.0
"""Seconds for which a resource without devices keeps its empty list."""


class RetiringDevices:
    """The retired devices, by resource and id, and since when nothing keeps each."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[Device, float]] = {}

    def keep(self, device: Device, now: float) -> None:
        """Keep `device`, which must be Unhealthy, for `RETIRE_AFTER` from now on."""
        assert not device.healthy
        self._entries[device.resource, device.id] = (device, now)

    def devices(self, now: float) -> Iterator[Device]:
        """Return the devices that stay; forget the others."""
        for key, (device, since) in list(self._entries.items()):
            if now - since >= RETIRE_AFTER:
                del self._entries[key]
            else:
                yield device


class EmptyResources:
    """Since when each resource that had devices has none; None while it has some."""

    def __init__(self) -> None:
        self._since: dict[str, float | None] = {}

    def is_listed(self, resource: str, *, has_devices: bool, now: float) -> bool:
        """Return whether the resource has a list: it has devices, or had some less than `EMPTY_LINGER` ago."""
        if has_devices:
            self._since[resource] = None
            return True
        if resource not in self._since:
            return False
        since = self._since[resource]
        if since is None:
            since = self._since[resource] = now
        if now - since < EMPTY_LINGER:
            return True
        del self._since[resource]
        return False
