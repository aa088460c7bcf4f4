"""A host in a directory: sysfs and /dev as filled by the Biren driver, changed as hardware changes.

Character devices need no root: each is a symlink to /dev/null. Instances of a split GPU share its
PCI function, whose `mem_info` has one instance's memory.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from biren_plugin.core.card_names import by_number
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.splits import SPLITS, SPLITS_IN_WORDS
from biren_plugin.errors import UsageError
from biren_plugin.host.host_paths import under

GPU_MEMORY: Final = 65_024 * 1024
"""KiB: a Biren166M."""
MAX_GPUS: Final = 256
_GPUS_PER_SWITCH: Final = 4
"""GPUs on a NUMA node."""
_DRIVER_VERSION: Final = "1.12.0"
_ATTRIBUTES: Final = {
    "vendor": vendor.PCI_VENDOR,
    "device": "0x0106",
    "current_link_speed": "32.0 GT/s PCIe",
    "current_link_width": "16",
    "max_link_speed": "32.0 GT/s PCIe",
    "max_link_width": "16",
}
_AER: Final = {"aer_dev_fatal": "FATAL", "aer_dev_nonfatal": "NONFATAL"}
_VENDOR_ID: Final = vendor.PCI_VENDOR_ID.to_bytes(2, "little")
_ALL_ONES: Final = b"\xff\xff"


def read_splits(gpus: int, svi: str) -> dict[int, int]:
    """Return instances by GPU, from `--gpus 8` and `--svi 6:2,7:4`. Raises `UsageError`."""
    if not 1 <= gpus <= MAX_GPUS:
        raise UsageError(f"--gpus {gpus}: give a number from 1 to {MAX_GPUS}")
    splits = dict.fromkeys(range(gpus), 1)
    named = set[int]()
    for part in filter(None, svi.split(",")):
        gpu, colon, parts = part.partition(":")
        if not (colon and re.fullmatch(r"[0-9]{1,4}", gpu) and re.fullmatch(r"[0-9]{1,4}", parts)):
            raise UsageError(f"--svi {part!r}: give GPU:INSTANCES, as in 6:2,7:4")
        if int(gpu) not in splits:
            raise UsageError(f"--svi {part}: GPUs are 0 to {gpus - 1}")
        if int(gpu) in named:
            raise UsageError(f"--svi {part}: GPU {int(gpu)} is already split; name each GPU once")
        if int(parts) not in SPLITS:
            raise UsageError(f"--svi {part}: a GPU is split into {SPLITS_IN_WORDS} instances")
        named.add(int(gpu))
        splits[int(gpu)] = int(parts)
    return splits


class SimulatedHost:
    """The host whose root is the directory `root`, which must be empty."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._class = under(root, vendor.CLASS_FOLDER)
        self._dev = under(root, vendor.NODE_FOLDER)
        self._class.mkdir(parents=True)
        self._dev.mkdir(parents=True)
        under(root, vendor.CONTROL_NODE).symlink_to("/dev/null")
        links = under(root, "/dev/char")
        links.mkdir()
        (links / "1:3").symlink_to("/dev/null")
        self._module = under(root, vendor.MODULE_FOLDER)
        self.load_module()
        self._install_driver_files()

    def _install_driver_files(self) -> None:
        versioned = f"{vendor.LIBRARY}.{_DRIVER_VERSION}"
        library = f"{vendor.SMI_FOLDER}/lib/{versioned}"
        tool = f"{vendor.SMI_FOLDER}/bin/{Path(vendor.TOOL).name}"
        for file in (under(self.root, library), under(self.root, tool)):
            file.parent.mkdir(parents=True)
            file.touch()
        libraries = under(self.root, vendor.LIBRARY_FOLDER)
        link_to_tool = under(self.root, vendor.TOOL)
        for folder in (libraries, link_to_tool.parent):
            folder.mkdir(parents=True)
        (libraries / versioned).symlink_to(library)
        (libraries / vendor.LIBRARY_SONAME).symlink_to(versioned)
        (libraries / vendor.LIBRARY).symlink_to(vendor.LIBRARY_SONAME)
        link_to_tool.symlink_to(tool)

    def add_gpus(self, splits: Mapping[int, int]) -> None:
        """Add GPUs with these numbers of instances, by physical id; card numbers continue from the last."""
        for gpu, parts in splits.items():
            self.split(gpu, parts)

    def split(self, gpu: int, parts: int) -> list[str]:
        """Replace a GPU's cards with `parts` new ones, at the lowest free numbers; return their names."""
        for name in self.cards_of(gpu):
            self.remove_card(name)
        function = self._function(gpu)
        function.mkdir(parents=True, exist_ok=True)
        attributes = _ATTRIBUTES | {
            vendor.GPU_ATTRIBUTE: f"{gpu}",
            vendor.MEMORY_ATTRIBUTE: f"{vendor.MEMORY_TOTAL}: {GPU_MEMORY // parts} kB\nMemFree: {GPU_MEMORY // parts} kB",
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
            names.append(f"{vendor.CARD_PREFIX}{number}")
            self._add_card(gpu, names[-1])
        return names

    def cards_of(self, gpu: int) -> list[str]:
        """Return the names of a GPU's current cards."""
        folders = self._function(gpu).glob(f"{vendor.MODULE}/{vendor.CARD_PREFIX}*")
        return sorted((path.name for path in folders), key=by_number)

    def cards_beside(self, name: str) -> list[str]:
        """Return the names of all cards of a card's GPU."""
        gpu = int(self._attribute(name, vendor.GPU_ATTRIBUTE).read_text())
        return self.cards_of(gpu)

    def _add_card(self, gpu: int, name: str) -> None:
        folder = self._function(gpu) / vendor.MODULE / name
        folder.mkdir(parents=True)
        (folder / "device").symlink_to("../..")
        self.put_node_back(name)
        real = folder.relative_to(self.root / "sys")
        (self._class / name).symlink_to(Path("../..") / real)

    def remove_card(self, name: str) -> None:
        """Remove the card from the class directory and from /dev."""
        folder = (self._class / name).resolve()
        (self._class / name).unlink()
        shutil.rmtree(folder)
        self.pull_node(name)

    def remove_gpu(self, gpu: int) -> None:
        """Remove a GPU from the bus, with all its cards."""
        for name in self.cards_of(gpu):
            self.remove_card(name)
        shutil.rmtree(self._function(gpu))

    def pull_node(self, name: str) -> None:
        """Remove the device node; the card stays in sysfs."""
        (self._dev / name).unlink(missing_ok=True)

    def put_node_back(self, name: str) -> None:
        """Create the device node again."""
        (self._dev / name).symlink_to("/dev/null")

    def load_module(self) -> None:
        """Load the driver's module."""
        self._module.mkdir(parents=True)
        (self._module / "version").write_text(f"{_DRIVER_VERSION}\n")

    def unload_module(self) -> None:
        """Unload the driver's module, without removing its cards."""
        shutil.rmtree(self._module)

    def count_errors(self, name: str, attribute: str, count: int) -> None:
        """Set the count in `aer_dev_fatal` or `aer_dev_nonfatal` of a card's function."""
        text = f"Undefined {count}\nTOTAL_ERR_{_AER[attribute]} {count}\n"
        self._attribute(name, attribute).write_text(text)

    def silence(self, name: str) -> None:
        """Make a card's function answer 0xFF to everything."""
        self._attribute(name, "config").write_bytes(_ALL_ONES)

    def unsilence(self, name: str) -> None:
        """Make a card's function answer again."""
        self._attribute(name, "config").write_bytes(_VENDOR_ID)

    def _attribute(self, name: str, attribute: str) -> Path:
        return self._class / name / "device" / attribute

    def _card(self, number: int) -> Path:
        return self._class / f"{vendor.CARD_PREFIX}{number}"

    def _function(self, gpu: int) -> Path:
        # Four functions behind one switch, each switch below a root bus of its own; eight bus
        # numbers for each, so 32 of them in a PCI domain.
        group, slot = divmod(gpu, _GPUS_PER_SWITCH)
        domain, bus = group // 32, group % 32 * 8
        path = [f"pci{domain:04x}:{bus:02x}"]
        for number, device in [(0, 0), (1, 0), (2, slot), (3 + slot, 0)]:
            path.append(f"{domain:04x}:{bus + number:02x}:{device:02x}.0")
        return self.root.joinpath("sys/devices", *path)
