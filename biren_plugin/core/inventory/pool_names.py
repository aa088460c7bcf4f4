"""What a unit of hardware is called in the node's pool of devices, and in claims: never `card_N`."""

from typing import Final

from biren_plugin.core.model import Device
from biren_plugin.core.parse.vendor import RESOURCE_OF_SPLIT

_SPLIT_OF_RESOURCE: Final = {name: split for split, name in RESOURCE_OF_SPLIT.items()}


def pool_name_of(device: Device) -> str | None:
    """`gpu-0000-3b-00-0`, `svi-0000-3b-00-0-2-1`, `vfio-0000-3b-00-1`; None without a PCI address."""
    card = device.card
    address = card.functions[0] if card.functions else card.pci_address
    if address is None:
        return None
    label = address.replace(":", "-").replace(".", "-").lower()
    if card.is_group:
        return f"vfio-{label}"
    split = _SPLIT_OF_RESOURCE.get(device.resource, 1)
    return f"gpu-{label}" if split == 1 else f"svi-{label}-{split}-{device.instance}"
