"""Cards that the management library knows and sysfs does not: listed as Unhealthy."""

from collections.abc import Collection

from biren_plugin.core.inventory.physical_gpus import SPLIT_SETTLE
from biren_plugin.core.model import Device
from biren_plugin.core.observed import LibraryRound
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card


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
            resource = vendor.RESOURCE_OF_SPLIT.get(known[number].split or 0)
            if resource is None:
                without_split.append(reason)
            else:
                devices.append(Device(Card(name, number, present=False), resource, (reason,)))
        return devices, without_split
