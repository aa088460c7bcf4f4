"""Since when each device is as healthy as it is: from the inventories, in turn."""

from biren_plugin.core.model import Device, Inventory

Key = tuple[str, str]
"""Resource and id."""


class HealthTimes:
    """Remembers the devices of the last inventory only."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[bool, float]] = {}

    def update(self, inventory: Inventory, now: float) -> None:
        """Takes the next inventory; `now` is seconds of whatever clock `since` is to answer in."""
        known: dict[Key, tuple[bool, float]] = {}
        for each in inventory.lists:
            for device in each.devices:
                key = each.resource, device.id
                before = self._known.get(key)
                same = before is not None and before[0] == device.healthy
                known[key] = before if before is not None and same else (device.healthy, now)
        self._known = known

    def since(self, device: Device) -> float | None:
        """When it last turned as healthy as it is, or appeared; None if no inventory told of that."""
        known = self._known.get((device.resource, device.id))
        return known[1] if known is not None and known[0] == device.healthy else None
