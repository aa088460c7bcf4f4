"""The needs of a kata node: an IOMMU, PCI functions bound to vfio-pci, and groups that can be passed through."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from biren_plugin.commands.doctor.card_checks import judged_devices
from biren_plugin.commands.doctor.diagnosis import (
    Check,
    cure_of,
    failure,
    ok,
    some_of,
    unknown,
    warning,
)
from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.parse import vendor
from biren_plugin.core.settings import Settings
from biren_plugin.errors import HostUnreadable, reason_of
from biren_plugin.host.host_paths import under
from biren_plugin.host.readers import read_host

PCI: Final = "/sys/bus/pci/devices"
_GROUPS: Final = "/sys/kernel/iommu_groups"


def biren_functions(root: Path) -> list[str]:
    """Return addresses of Biren's PCI functions. Raises `OSError`."""
    folder = under(root, PCI)
    return [
        name for name in sorted(os.listdir(folder)) if _vendor(folder / name) == vendor.PCI_VENDOR
    ]


def _vendor(function: Path) -> str:
    try:
        return (function / "vendor").read_text().strip()
    except OSError:
        return ""


def _is_noiommu(root: Path, group: str) -> bool:
    """Return whether VFIO made the group itself, for lack of an IOMMU."""
    try:
        name = under(root, f"{_GROUPS}/{group}/name").read_text()
    except OSError:
        return False
    return name.strip() == "vfio-noiommu"


def check_passthrough(settings: Settings) -> Iterator[Check]:
    """Yield rows of the IOMMU and of the functions' drivers, for kata only."""
    if not settings.offers_groups:
        yield ok("IOMMU", "not needed without --container-runtime kata")
        return
    root = settings.host_root
    try:
        groups = os.listdir(under(root, _GROUPS))
    except OSError:
        groups = []
    noiommu = [each for each in groups if _is_noiommu(root, each)]
    if noiommu:
        yield failure(
            "IOMMU",
            f"off: VFIO runs without one for {len(noiommu)} of {len(groups)} groups (noiommu)",
            "switch it on in the firmware, and boot with intel_iommu=on or amd_iommu=on",
        )
    elif groups:
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
        yield unknown(name, f"{PCI}: {reason_of(error)}", "in a container: mount the host's /sys")
        return
    drivers = {each: _driver(root, each) for each in functions}
    wrong = [
        f"{each} is bound to {driver or 'nothing'}"
        for each, driver in drivers.items()
        if driver not in ("vfio-pci", vendor.HYPERVISOR_DRIVER)
    ]
    if not functions:
        yield failure(name, "no Biren function on the bus", f"see `{vendor.LSPCI}`")
    elif wrong:
        yield failure(name, some_of(wrong), "bind each to vfio-pci")
    else:
        yield ok(name, f"{len(functions)}, each bound to vfio-pci or {vendor.HYPERVISOR_DRIVER}")
    if functions:
        yield _groups(settings)


def _driver(root: Path, function: str) -> str:
    try:
        return os.readlink(under(root, f"{PCI}/{function}/driver")).rpartition("/")[2]
    except OSError:
        return ""


def _groups(settings: Settings) -> Check:
    """Yield the row of the groups that the daemon would offer."""
    name = "VFIO groups"
    advice = "follow the advice of each; `br-gpu-device-plugin devices --container-runtime kata` shows all of them"
    try:
        inventory = judge_once(read_host(settings), settings.exclude)
    except HostUnreadable as error:
        return unknown(name, f"{error}", cure_of(error))
    count, unhealthy, doubts = judged_devices(inventory)
    doubts += [*inventory.unsettled, *inventory.unmatched]
    if unhealthy or not count:
        seen = some_of([*unhealthy, *doubts]) or "none that could be allocated"
        return failure(name, seen, advice)
    if doubts:
        return warning(name, some_of(doubts), advice)
    return ok(name, f"{count}, healthy in this scan")
