"""What a kubelet should see of a simulated host: read from its files, without the daemon's code."""

from pathlib import Path
from typing import Final

_RESOURCES: Final = {
    1: "birentech.com/gpu",
    2: "birentech.com/1-2-gpu",
    4: "birentech.com/1-4-gpu",
}
_SILENT: Final = b"\xff\xff"

Devices = dict[str, dict[str, bool]]
"""Whether each device is healthy, by resource and id; no resource without a device."""


def truth(root: Path) -> Devices:
    """The devices of the host in `root` as it is now; a GPU with another number of cards has none."""
    devices: Devices = {}
    for names in cards_by_gpu(root).values():
        if (resource := _RESOURCES.get(len(names))) is not None:
            found = {name: _is_well(root, name) for name in names}
            devices.setdefault(resource, {}).update(found)
    return devices


def is_settled(root: Path) -> bool:
    """Whether each GPU has as many cards as a split has."""
    return all(len(names) in _RESOURCES for names in cards_by_gpu(root).values())


def cards_by_gpu(root: Path) -> dict[int, list[str]]:
    """Names of the cards in sysfs, by physical id."""
    by_gpu: dict[int, list[str]] = {}
    for path in sorted((root / "sys/class/biren").iterdir()):
        by_gpu.setdefault(int((path / "device/physical_id").read_text()), []).append(path.name)
    return by_gpu


def _is_well(root: Path, card: str) -> bool:
    config = root / "sys/class/biren" / card / "device/config"
    return (root / "dev/biren" / card).is_char_device() and config.read_bytes() != _SILENT
