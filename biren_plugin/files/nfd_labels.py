"""Keeps the file from which Node Feature Discovery labels the node, for as long as the daemon serves.

In a thread: a disk that hangs must not keep bad news from the kubelet.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from biren_plugin.board import Board, news_of
from biren_plugin.core.labels import feature_file, node_labels
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.vendor import FEATURE_FILE
from biren_plugin.errors import FeaturesUnwritable, NoThread, reason_of
from biren_plugin.host.worker_thread import WorkerThread
from biren_plugin.notice import say
from biren_plugin.unix_sockets import FileIdentity

REMOVE_DEADLINE: Final = 1.0
"""Seconds that the daemon's end waits for the disk."""


class FeatureFile:
    """Our file in `folder`, a folder of NFD's; what an earlier daemon left there is taken over.

    Blocking: one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FEATURE_FILE
        self._text: str | None = None
        """What we wrote last; None: nothing yet."""
        self._written: FileIdentity | None = None

    def write(self, text: str) -> bool:
        """Puts `text` on disk, whole or not at all; no text: no file. Whether that changed anything.

        Raises `FeaturesUnwritable`.
        """
        if text == self._text and self._is_there() == bool(text):
            return False
        try:
            if text:
                beside = self._path.with_name(f".{FEATURE_FILE}")  # NFD reads no hidden file
                beside.write_text(text)
                beside.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise FeaturesUnwritable(
                f"cannot write {self._path}: {reason_of(error)}; does --nfd-features-dir lead to a "
                "folder that is mounted for writing?"
            ) from error
        changed = bool(text or self._text)
        self._text, self._written = text, FileIdentity.of(self._path)
        return changed

    def remove(self) -> None:
        """Takes our file away; one of the same text may be that of the daemon that took over."""
        with suppress(OSError):  # gone in between, or may not be written any more
            if self._is_there():
                self._path.unlink()
        self._text = self._written = None

    def _is_there(self) -> bool:
        return self._written is not None and FileIdentity.of(self._path) == self._written


async def publish_labels(
    folder: Path, inventory: Board[Inventory], observed: Board[Observed]
) -> None:
    """Writes the file when the inventory or the driver's version changes; removes it when cancelled.

    Raises `FeaturesUnwritable` and `NoThread`.
    """
    file = FeatureFile(folder)
    thread = WorkerThread()
    written: tuple[Inventory, str | None] | None = None
    try:
        with news_of(inventory, observed) as news:
            async for _ in news:
                if (current := inventory.latest) is None:
                    continue
                version = observed.latest.driver_version if observed.latest is not None else None
                if (current, version) == written:
                    continue
                written = (current, version)
                labels = node_labels(current, version)
                if await thread.run(partial(file.write, feature_file(labels))):
                    shown = ", ".join(f"{name}={value}" for name, value in labels.items())
                    say("labels_written", f"labels for Node Feature Discovery: {shown or 'none'}")
    finally:
        with trio.move_on_after(REMOVE_DEADLINE, shield=True), suppress(NoThread):
            await thread.run(file.remove)
