"""What a host shows of its cards without a read of any card: an equal fingerprint means the same cards and nodes.

Names and inodes of the class directory show that the driver created a card again, since sysfs numbers its
files without reuse. Other file systems reuse inodes, and date their directories.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from biren_plugin.core.parse import vendor
from biren_plugin.records import frozen


@frozen
class HostFingerprint:
    """Two fingerprints are equal if the host shows the same cards, nodes and driver."""

    cards: Mapping[str, int]
    """The inode of each entry of the class directory, by name."""
    folders: tuple[object, ...]
    """Identity and date of the class directory and of the directory of nodes; None where there is none."""
    control_node: object
    """Its identity; None if it is missing."""
    has_module: bool


def read_fingerprint(root: Path) -> HostFingerprint:
    """Return the fingerprint of the host below `root`. Raises `OSError` if the class directory cannot be read."""
    base = str(root)
    folders = (_version(f"{base}{vendor.CLASS_FOLDER}"), _version(f"{base}{vendor.NODE_FOLDER}"))
    with os.scandir(f"{base}{vendor.CLASS_FOLDER}") as entries:
        cards = {entry.name: entry.inode() for entry in entries}
    has_module = _version(f"{base}{vendor.MODULE_FOLDER}") is not None
    return HostFingerprint(cards, folders, _node(f"{base}{vendor.CONTROL_NODE}"), has_module)


def _node(path: str) -> object:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode


def _version(folder: str) -> object:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
