"""What the management library adds to the inventory: cards that sysfs does not show, and product names.

sysfs has only the PCI device id of a GPU, and no public table says which product has which id.
"""

from collections.abc import Collection, Mapping

import attrs

from biren_plugin.core.inventory.physical_gpus import SPLIT_SETTLE
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.observed import LibraryRound
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import CardReading
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT


class LibraryOnly:
    """When each such card became known, by node id."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def update(
        self, library: LibraryRound | None, in_sysfs: Collection[int], now: float
    ) -> tuple[list[Device], list[str]]:
        """Return devices to list, and sentences about cards of unknown split, and so of unknown resource.

        `in_sysfs` are the numbers of the cards that sysfs shows, or showed. A card that may be appearing or
        disappearing right now is left out for `SPLIT_SETTLE`.
        """
        known = library.known if library is not None else {}
        self._since = {
            number: self._since.get(number, now) for number in known if number not in in_sysfs
        }
        devices, without_split = [], []
        for number, since in self._since.items():
            if now - since < SPLIT_SETTLE:
                continue
            name = f"{vendor.CARD_PREFIX}{number}"
            reason = (
                f"{name} is known to the management library but missing from {vendor.CLASS_FOLDER}; "
                f"see `{vendor.TOOL_LIST}`, and `{vendor.KERNEL_LOG}`"
            )
            resource = RESOURCE_OF_SPLIT.get(known[number].split or 0)
            if resource is None:
                without_split.append(reason)
            else:
                devices.append(Device(Card(name, number, present=False), resource, (reason,)))
        return devices, without_split


class ProductNames:
    """The names by GPU, as last reported: a library that does not answer takes no name away."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def add(self, inventory: Inventory, readings: Mapping[int, CardReading]) -> Inventory:
        """Return the inventory with the known names; `readings` by card number."""
        devices = [device for each in inventory.lists for device in each.devices]
        for device in devices:
            reading = readings.get(device.card.number)
            if device.card.physical_id is not None and reading is not None and reading.product_name:
                self._names[device.card.physical_id] = reading.product_name
        if not self._names:
            return inventory
        for gpu in self._names.keys() - {device.card.physical_id for device in devices}:
            del self._names[gpu]
        return attrs.evolve(inventory, lists=tuple(map(self._with_names, inventory.lists)))

    def _with_names(self, devices: DeviceList) -> DeviceList:
        return attrs.evolve(devices, devices=tuple(map(self._with_name, devices.devices)))

    def _with_name(self, device: Device) -> Device:
        gpu = device.card.physical_id
        name = self._names.get(gpu) if gpu is not None else None
        return attrs.evolve(device, card=attrs.evolve(device.card, product_name=name))
