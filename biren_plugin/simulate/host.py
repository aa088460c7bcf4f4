"""A host in a folder: sysfs and /dev as the Biren driver fills them, changed as hardware changes.

Character devices need no root: each is a symlink to /dev/null. Instances of a split GPU share its
PCI function, whose `mem_info` tells one instance's memory.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from biren_plugin.core.model import RESOURCE_OF_SPLIT
from biren_plugin.errors import UsageError

GPU_MEMORY: Final = 65_024 * 1024
"""KiB: a Biren166M."""
MAX_GPUS: Final = 256
_GPUS_PER_SWITCH: Final = 4
"""And so many on a NUMA node."""
_DRIVER_FOLDER: Final = "usr/local/birensupa/driver/biren-smi"
_ATTRIBUTES: Final = {
    "vendor": "0x1ee0",
    "device": "0x0106",
    "current_link_speed": "32.0 GT/s PCIe",
    "current_link_width": "16",
    "max_link_speed": "32.0 GT/s PCIe",
    "max_link_width": "16",
}
_AER: Final = {"aer_dev_fatal": "FATAL", "aer_dev_nonfatal": "NONFATAL"}
_VENDOR_ID: Final = b"\xe0\x1e"
_ALL_ONES: Final = b"\xff\xff"


def read_splits(gpus: int, svi: str) -> dict[int, int]:
    """Instances by GPU, from `--gpus 8` and `--svi 6:2,7:4`. Raises `UsageError`."""
    if not 1 <= gpus <= MAX_GPUS:
        raise UsageError(f"--gpus {gpus}: give a number from 1 to {MAX_GPUS}")
    splits = dict.fromkeys(range(gpus), 1)
    for part in filter(None, svi.split(",")):
        gpu, colon, parts = part.partition(":")
        if not (colon and re.fullmatch(r"[0-9]{1,4}", gpu) and re.fullmatch(r"[0-9]{1,4}", parts)):
            raise UsageError(f"--svi {part!r}: give GPU:INSTANCES, as in 6:2,7:4")
        if int(gpu) not in splits:
            raise UsageError(f"--svi {part}: GPUs are 0 to {gpus - 1}")
        if int(parts) not in RESOURCE_OF_SPLIT:
            raise UsageError(f"--svi {part}: a GPU is split into 1, 2 or 4 instances")
        splits[int(gpu)] = int(parts)
    return splits


class SimulatedHost:
    """The host whose root is the folder `root`, which must be empty."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._class = root / "sys/class/biren"
        self._dev = root / "dev/biren"
        self._class.mkdir(parents=True)
        self._dev.mkdir(parents=True)
        (root / "dev/biren-m").symlink_to("/dev/null")
        self._module = root / "sys/module/biren"
        self.load_module()
        self._install_driver_files()

    def _install_driver_files(self) -> None:
        library = self.root / _DRIVER_FOLDER / "lib/libbiren-ml.so.1.12.0"
        tool = self.root / _DRIVER_FOLDER / "bin/brsmi"
        for file in (library, tool):
            file.parent.mkdir(parents=True)
            file.touch()
        for folder in ("usr/lib", "usr/bin"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "usr/lib/libbiren-ml.so.1.12.0").symlink_to(
            f"/{_DRIVER_FOLDER}/lib/{library.name}"
        )
        (self.root / "usr/lib/libbiren-ml.so.1").symlink_to("libbiren-ml.so.1.12.0")
        (self.root / "usr/lib/libbiren-ml.so").symlink_to("libbiren-ml.so.1")
        (self.root / "usr/bin/brsmi").symlink_to(f"/{_DRIVER_FOLDER}/bin/brsmi")

    def add_gpus(self, splits: Mapping[int, int]) -> None:
        """GPUs with so many instances each, by physical id; cards are numbered on from the last."""
        for gpu, parts in splits.items():
            self.split(gpu, parts)

    def split(self, gpu: int, parts: int) -> list[str]:
        """Replaces a GPU's cards by `parts` new ones, at the lowest free numbers; their names."""
        for name in self.cards_of(gpu):
            self.remove_card(name)
        function = self._function(gpu)
        function.mkdir(parents=True, exist_ok=True)
        attributes = _ATTRIBUTES | {
            "physical_id": f"{gpu}",
            "mem_info": f"MemTotal: {GPU_MEMORY // parts} kB\nMemFree: {GPU_MEMORY // parts} kB",
            "numa_node": f"{gpu // _GPUS_PER_SWITCH}",
        }
        for name, text in attributes.items():
            (function / name).write_text(f"{text}\n")
        for name, kind in _AER.items():
            (function / name).write_text(f"Undefined 0\nTOTAL_ERR_{kind} 0\n")
        (function / "config").write_bytes(_VENDOR_ID)
        names = []
        for _ in range(parts):
            number = next(n for n in range(MAX_GPUS * 4) if not self._card(n).is_symlink())
            names.append(f"card_{number}")
            self._add_card(gpu, names[-1])
        return names

    def cards_of(self, gpu: int) -> list[str]:
        """Names of the cards that a GPU has now."""
        return sorted(path.name for path in self._function(gpu).glob("biren/card_*"))

    def cards_beside(self, name: str) -> list[str]:
        """Names of all cards of a card's GPU."""
        gpu = int(self._attribute(name, "physical_id").read_text())
        return self.cards_of(gpu)

    def _add_card(self, gpu: int, name: str) -> None:
        folder = self._function(gpu) / "biren" / name
        folder.mkdir(parents=True)
        (folder / "device").symlink_to("../..")
        self.put_node_back(name)
        real = folder.relative_to(self.root / "sys")
        (self._class / name).symlink_to(Path("../..") / real)

    def remove_card(self, name: str) -> None:
        """The card is gone from the class folder and from /dev."""
        folder = (self._class / name).resolve()
        (self._class / name).unlink()
        shutil.rmtree(folder)
        self.pull_node(name)

    def remove_gpu(self, gpu: int) -> None:
        """The GPU fell off the bus, with all its cards."""
        for name in self.cards_of(gpu):
            self.remove_card(name)
        shutil.rmtree(self._function(gpu))

    def pull_node(self, name: str) -> None:
        """The device node is gone, sysfs still has the card."""
        (self._dev / name).unlink(missing_ok=True)

    def put_node_back(self, name: str) -> None:
        """The device node is there again."""
        (self._dev / name).symlink_to("/dev/null")

    def load_module(self) -> None:
        """The driver's module is loaded."""
        self._module.mkdir(parents=True)
        (self._module / "version").write_text("1.12.0\n")

    def unload_module(self) -> None:
        """The driver's module is gone; its cards are another matter."""
        shutil.rmtree(self._module)

    def count_errors(self, name: str, attribute: str, count: int) -> None:
        """`aer_dev_fatal` or `aer_dev_nonfatal` of a card's function counts so many errors now."""
        text = f"Undefined {count}\nTOTAL_ERR_{_AER[attribute]} {count}\n"
        self._attribute(name, attribute).write_text(text)

    def silence(self, name: str) -> None:
        """A card's function answers 0xFF to everything."""
        self._attribute(name, "config").write_bytes(_ALL_ONES)

    def unsilence(self, name: str) -> None:
        """A card's function answers again."""
        self._attribute(name, "config").write_bytes(_VENDOR_ID)

    def _attribute(self, name: str, attribute: str) -> Path:
        return self._class / name / "device" / attribute

    def _card(self, number: int) -> Path:
        return self._class / f"card_{number}"

    def _function(self, gpu: int) -> Path:
        # Four functions behind one switch, each switch below a root bus of its own; eight bus
        # numbers for each, so 32 of them in a PCI domain.
        group, slot = divmod(gpu, _GPUS_PER_SWITCH)
        domain, bus = group // 32, group % 32 * 8
        path = [f"pci{domain:04x}:{bus:02x}"]
        for number, device in [(0, 0), (1, 0), (2, slot), (3 + slot, 0)]:
            path.append(f"{domain:04x}:{bus + number:02x}:{device:02x}.0")
        return self.root.joinpath("sys/devices", *path)
