"""PCI addresses and their order, and the paths of VFIO groups: what is needed without a VFIO group too."""

import re
from typing import Final

VFIO_FOLDER: Final = "/dev/vfio"
_ADDRESS: Final = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")


def pci_number(address: str) -> int | None:
    """Return a number for a PCI address, in the order of addresses; None for anything else."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return domain << 16 | bus << 8 | device << 3 | function


def address_of(number: int) -> str:
    """Return the inverse of `pci_number`: also the address of the GPU with that `physical_id`."""
    return f"{number >> 16:04x}:{number >> 8 & 0xFF:02x}:{number >> 3 & 0x1F:02x}.{number & 7}"


def noiommu_node(group: int) -> str:
    """Return the path of a group's node when VFIO runs without an IOMMU."""
    return f"{VFIO_FOLDER}/noiommu-{group}"
