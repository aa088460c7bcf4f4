"""Keeps the file from which Node Feature Discovery labels the node, for as long as the daemon serves.

Without a thread: the folder is on the node's own disk.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from biren_plugin.board import Board
from biren_plugin.core.labels import feature_file, node_labels
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.errors import FeaturesUnwritable

log = logging.getLogger(__name__)

NAME: Final = "biren.features"


class FeatureFile:
    """Our file in `folder`, a folder of NFD's."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._text = ""

    def write(self, text: str) -> bool:
        """Puts `text` on disk, whole or not at all; no text: no file. Whether that changed anything.

        Raises `FeaturesUnwritable`.
        """
        if text == self._text:
            return False
        if not text:
            self.remove()
            return True
        beside = self._path.with_name(f".{NAME}")  # NFD reads no hidden file
        try:
            beside.write_text(text)
            beside.replace(self._path)
        except OSError as error:
            raise FeaturesUnwritable(
                f"cannot write {self._path}: {error.strerror}; does --nfd-features-dir lead to a "
                "folder that is mounted for writing?"
            ) from error
        self._text = text
        return True

    def remove(self) -> None:
        """Takes the file away, if it is as we wrote it."""
        with suppress(OSError, ValueError):  # gone, or somebody else's by now
            if self._text and self._path.read_text() == self._text:
                self._path.unlink()
        self._text = ""


async def publish_labels(
    folder: Path, inventory: Board[Inventory], observed: Board[Observed]
) -> None:
    """Writes the file when the inventory changes, and removes it when cancelled.

    Raises `FeaturesUnwritable`.
    """
    file = FeatureFile(folder)
    try:
        with inventory.subscribe() as inventories:
            async for current in inventories:
                snapshot = observed.latest.snapshot if observed.latest is not None else None
                version = snapshot.driver_version if snapshot is not None else None
                labels = node_labels(current, version)
                if file.write(feature_file(labels)):
                    told = ", ".join(f"{name}={value}" for name, value in labels.items())
                    log.info(
                        "labels for Node Feature Discovery: %s", told or "none",
                        extra={"event": "labels_written"},
                    )  # fmt: skip
    finally:
        file.remove()
