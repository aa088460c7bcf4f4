"""Adds to each card the product name that the management library reports for its GPU.

sysfs has only the PCI device id, and no public table says which product has which id.
"""

from collections.abc import Mapping

import attrs

from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse.brml import CardReading


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
