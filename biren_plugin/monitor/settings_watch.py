"""Notices that the settings file is not as the daemon read it at its start: settings are never read again."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from biren_plugin.host.bounded_file import read_bounded
from biren_plugin.notice import WARNING, Notice
from biren_plugin.patient_calls import run_patiently
from biren_plugin.worker_thread import WorkerThread

INTERVAL: Final = 30.0
"""Seconds between reads."""
_MOST: Final = 65_537
"""Bytes: one more than a settings file may have."""


Seen = tuple[Path | None, bytes | None]
"""The file and its content; None for what cannot be read."""


class SettingsWatch:
    """Compares the file that `choose` returns now with the one of the first read. `choose` may raise `OSError`."""

    def __init__(self, choose: Callable[[], Path], hanging: Notice | None = None) -> None:
        """Compare what `choose` leads to. `hanging`: where a hang of its disk begins and ends."""
        self._choose = choose
        self._first: Seen | None = None
        self._notice = Notice()
        self._hanging = hanging or Notice()

    async def run(self) -> None:
        """Read the file every `INTERVAL` seconds, in a thread, and log a difference once."""
        thread = WorkerThread()
        while True:
            doing = "reading the settings file (--config, --config-dir)"
            self.compare(await run_patiently(thread, self.read, self._hanging, doing))
            await trio.sleep(INTERVAL)

    def read(self) -> Seen:
        """Return what is there now. Blocks."""
        path = None
        try:
            path = self._choose()
            return path, read_bounded(path, _MOST)
        except OSError:
            return path, None

    def compare(self, now: Seen) -> None:
        """Log the difference to the first read, if it is new, and its end."""
        if self._first is None:
            self._first = now
        path = now[0] or self._first[0]
        if now == self._first:
            text = f"{path}: the settings are again as the daemon read them"
            self._notice.end("settings_as_read", text, path=str(path))
        else:
            text = (
                f"{path}: the settings have changed since the daemon read them at its start; "
                "restart it to apply them"
            )
            self._notice.begin("settings_changed", text, WARNING, path=str(path))
