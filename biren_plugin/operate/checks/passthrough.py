"""What a kata node needs: an IOMMU, and PCI functions that are bound to vfio-pci."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from biren_plugin.core.diagnosis import Check, failure, ok, unknown
from biren_plugin.core.settings import Settings
from biren_plugin.host.rooted import resolve, under

PCI: Final = "/sys/bus/pci/devices"
_GROUPS: Final = "/sys/kernel/iommu_groups"
_VENDOR: Final = "0x1ee0"
_HYPERVISOR_DRIVER: Final = "BEV_HYPER_DRIVER"
"""Of a physical function whose virtual functions are handed out."""


def biren_functions(root: Path) -> list[str]:
    """Addresses of Biren's PCI functions. Raises `OSError`."""
    folder = under(root, PCI)
    return [name for name in sorted(os.listdir(folder)) if _vendor(folder / name) == _VENDOR]


def _vendor(function: Path) -> str:
    try:
        return (function / "vendor").read_text().strip()
    except OSError:
        return ""


def check_passthrough(settings: Settings) -> Iterator[Check]:
    """Rows of the IOMMU and of the functions' drivers, for kata only."""
    if settings.container_runtime != "kata":
        yield ok("IOMMU", "not needed without --container-runtime kata")
        return
    root = settings.host_root
    try:
        groups = os.listdir(under(root, _GROUPS))
    except OSError:
        groups = []
    if groups:
        yield ok("IOMMU", f"on, {len(groups)} groups")
    else:
        yield failure(
            "IOMMU",
            f"off: no group in {_GROUPS}",
            "switch it on in the firmware, and boot with intel_iommu=on or amd_iommu=on",
        )
    name = "VFIO functions"
    try:
        functions = biren_functions(root)
    except OSError as error:
        yield unknown(name, f"{PCI}: {error.strerror}", "in a container: mount the host's /sys")
        return
    drivers = {each: _driver(root, each) for each in functions}
    wrong = [
        f"{each} is bound to {driver or 'nothing'}"
        for each, driver in drivers.items()
        if driver not in ("vfio-pci", _HYPERVISOR_DRIVER)
    ]
    if not functions:
        yield failure(name, "no function of Biren's on the bus", "see `lspci -d 1ee0:`")
    elif wrong:
        yield failure(name, "; ".join(wrong), "bind each to vfio-pci")
    else:
        yield ok(name, f"{len(functions)}, each bound to vfio-pci or {_HYPERVISOR_DRIVER}")


def _driver(root: Path, function: str) -> str:
    return (resolve(root, f"{PCI}/{function}/driver") or "").rpartition("/")[2]
