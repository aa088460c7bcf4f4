"""Keeps the file from which Node Feature Discovery labels the node, as long as the daemon serves.

The file is written in a thread, so that a hanging disk does not delay lists to the kubelet.
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
from biren_plugin.errors import FeaturesUnwritable, NoThread, why_unwritable
from biren_plugin.notice import Notice, say
from biren_plugin.patient_calls import run_patiently
from biren_plugin.unix_sockets import FileIdentity
from biren_plugin.worker_thread import WorkerThread

REMOVE_DEADLINE: Final = 1.0
"""Seconds that an ending daemon waits for the disk."""


class FeatureFile:
    """Our file in `folder`, one of NFD's directories; takes over the file of an earlier daemon.

    Blocking; for one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FEATURE_FILE
        self._text: str | None = None
        """The text that we wrote last; None: none yet."""
        self._written: FileIdentity | None = None
        self.is_over = False
        """Set when another daemon may write the file: what hangs until then must not overwrite its text."""

    def write(self, text: str) -> bool:
        """Put `text` on disk, whole or not at all; an empty text removes the file. Return whether it changed.

        Raises `FeaturesUnwritable`.
        """
        if text == self._text and self._is_there() == bool(text):
            return False
        try:
            if text:
                beside = self._path.with_name(f".{FEATURE_FILE}")  # NFD ignores hidden files
                beside.write_text(text)
                if self.is_over:
                    beside.unlink()
                    return False
                beside.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise FeaturesUnwritable(
                why_unwritable(self._path, error, "--nfd-features-dir")
            ) from error
        changed = bool(text or self._text)
        self._text, self._written = text, FileIdentity.of(self._path)
        return changed

    def remove(self) -> None:
        """Remove our file; a file with another identity may belong to the daemon that took over."""
        with suppress(OSError):  # already gone, or no longer writable
            if self._is_there():
                self._path.unlink()
        self._text = self._written = None

    def _is_there(self) -> bool:
        return self._written is not None and FileIdentity.of(self._path) == self._written


async def publish_labels(
    folder: Path, inventory: Board[Inventory], observed: Board[Observed], hanging: Notice
) -> None:
    """Write the file when the inventory or the driver's version changes; remove it when cancelled.

    `hanging`: where a hang of the disk begins and ends. Raises `FeaturesUnwritable` and `NoThread`.
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
                write = partial(file.write, feature_file(labels))
                doing = f"writing {folder / FEATURE_FILE} (--nfd-features-dir)"
                if await run_patiently(thread, write, hanging, doing):
                    shown = ", ".join(f"{name}={value}" for name, value in labels.items())
                    say("labels_written", f"labels for Node Feature Discovery: {shown or 'none'}")
    finally:
        file.is_over = True
        hanging.forget()
        with trio.move_on_after(REMOVE_DEADLINE, shield=True), suppress(NoThread):
            await thread.run(file.remove)
