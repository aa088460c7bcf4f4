"""A kata node in a directory: PCI functions, IOMMU groups and /dev/vfio, as the kernel shows them.

Links are relative, as in sysfs. A group's node is a link to /dev/null, and there while a function of
the group is bound to vfio-pci. GPU n stands at `0000:<n + 1>:00.0`, its virtual functions behind it.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HYPERVISOR: Final = "BEV_HYPER_DRIVER"
VFIO: Final = "vfio-pci"
BIREN: Final = 0x1EE0
_HEADER: Final = 64
_ATTRIBUTES: Final = {
    "current_link_speed": "32.0 GT/s PCIe",
    "current_link_width": "16",
    "max_link_speed": "32.0 GT/s PCIe",
    "max_link_width": "16",
    "aer_dev_fatal": "Undefined 0\nTOTAL_ERR_FATAL 0",
    "aer_dev_nonfatal": "Undefined 0\nTOTAL_ERR_NONFATAL 0",
}


def physical(gpu: int) -> str:
    """The address of a GPU's physical function."""
    return f"0000:{gpu + 1:02x}:00.0"


def virtual(gpu: int, number: int) -> str:
    """The address of a GPU's virtual function, from 0 on."""
    return f"0000:{gpu + 1:02x}:{(number + 1) // 8:02x}.{(number + 1) % 8}"


class VfioHost:
    """The host whose root is the directory `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bus = root / "sys/bus/pci/devices"
        self._groups = root / "sys/kernel/iommu_groups"
        self._nodes = root / "dev/vfio"
        for folder in (self._bus, self._groups, self._nodes):
            folder.mkdir(parents=True)
        (self._nodes / "vfio").symlink_to("/dev/null")

    def add_whole(self, gpu: int, group: int | None) -> str:
        """A GPU that is passed through as it is; its address."""
        self.add_function(physical(gpu), group, driver=VFIO, numa_node=gpu // 4)
        return physical(gpu)

    def add_split(self, gpu: int, groups: Sequence[int | None]) -> list[str]:
        """A GPU with a virtual function in each of `groups`; the virtual functions' addresses."""
        address = physical(gpu)
        self.add_function(address, 1000 + gpu, driver=HYPERVISOR, numa_node=gpu // 4)
        functions = [virtual(gpu, number) for number in range(len(groups))]
        for number, (function, group) in enumerate(zip(functions, groups, strict=True)):
            folder = self.add_function(function, group, driver=VFIO, numa_node=gpu // 4)
            (folder / "config").write_bytes(b"\xff\xff\xff\xff" + bytes(_HEADER - 4))
            (folder / "physfn").symlink_to(f"../{address}")
            (self.folder(address) / f"virtfn{number}").symlink_to(f"../{function}")
        self.write(address, "sriov_numvfs", str(len(groups)))
        return functions

    def add_function(
        self,
        address: str,
        group: int | None,
        *,
        driver: str = "",
        vendor: int = BIREN,
        numa_node: int = -1,
    ) -> Path:
        """Any PCI function; its real folder."""
        bus = address.split(":")[1]
        folder = self.root / f"sys/devices/pci0000:00/0000:00:{bus}.0" / address
        folder.mkdir(parents=True)
        (self._bus / address).symlink_to(os.path.relpath(folder, self._bus))
        attributes = {**_ATTRIBUTES, "vendor": f"{vendor:#06x}", "numa_node": str(numa_node)}
        for name, text in attributes.items():
            self.write(address, name, text)
        self.answer(address)
        if group is not None:
            members = self._groups / str(group) / "devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(os.path.relpath(folder, members))
            (folder / "iommu_group").symlink_to(os.path.relpath(members.parent, folder))
        self.bind(address, driver)
        return folder

    def bind(self, address: str, driver: str) -> None:
        """The function is bound to that driver now; empty: to none."""
        link = self.folder(address) / "driver"
        link.unlink(missing_ok=True)
        if driver:
            target = self.root / "sys/bus/pci/drivers" / driver
            target.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent))
        group = self.group_of(address)
        if group is not None:
            self._update_node(group)

    def unsplit(self, gpu: int) -> None:
        """The GPU's virtual functions are gone."""
        folder = self.folder(physical(gpu))
        for link in sorted(folder.glob("virtfn*")):
            if link.exists():  # the link may have been removed before
                self.remove(link.resolve().name)
            link.unlink()
        self.write(physical(gpu), "sriov_numvfs", "0")

    def remove(self, address: str) -> None:
        """The function has left the bus."""
        folder, group = self.folder(address), self.group_of(address)
        (self._bus / address).unlink()
        shutil.rmtree(folder)
        if group is not None:
            (self._groups / str(group) / "devices" / address).unlink()
            self._update_node(group)

    def silence(self, address: str) -> None:
        """The function answers 0xFF to everything."""
        (self.folder(address) / "config").write_bytes(b"\xff" * _HEADER)

    def answer(self, address: str) -> None:
        """The function answers."""
        header = BIREN.to_bytes(2, "little") + bytes(_HEADER - 2)
        (self.folder(address) / "config").write_bytes(header)

    def write(self, address: str, attribute: str, text: str) -> None:
        """An attribute has that text now."""
        (self.folder(address) / attribute).write_text(f"{text}\n")

    def node(self, group: int) -> Path:
        """Where the group's device node is, or would be."""
        return self._nodes / str(group)

    def folder(self, address: str) -> Path:
        """The function's real folder."""
        return (self._bus / address).resolve()

    def group_of(self, address: str) -> int | None:
        """The group that the function is in."""
        link = self.folder(address) / "iommu_group"
        return int(link.readlink().name) if link.is_symlink() else None

    def _update_node(self, group: int) -> None:
        members = (self._groups / str(group) / "devices").iterdir()
        drivers = [member / "driver" for member in members]
        bound = any(link.is_symlink() and link.readlink().name == VFIO for link in drivers)
        if bound and not self.node(group).is_symlink():
            self.node(group).symlink_to("/dev/null")
        elif not bound:
            self.node(group).unlink(missing_ok=True)
