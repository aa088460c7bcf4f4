"""Waits until something changes in a few directories: by inotify, and at most for a given time.

inotify instances run out on busy nodes, sysfs sends no events, and a directory may be created after
the daemon started. So a caller reads again after a while in any case, and nothing depends on an event.
"""

import ctypes
import math
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import inotify_simple
import trio
from inotify_simple import Event, INotify, flags

from biren_plugin.errors import reason_of
from biren_plugin.notice import Notice

_MASK = (
    flags.CREATE
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.DELETE_SELF
    | flags.MOVE_SELF
)
_RETRY = 60.0
"""Seconds between tries to get an inotify instance."""
_ARM_AGAIN = 5.0
"""Seconds: a directory may be hidden by a mount, of which no event tells, or was too noisy."""
_REST = 0.02
"""Seconds: changes come in bursts (a node for each card), and one scan serves the whole burst."""
_IDLE_REST = 0.1
"""Seconds without a read after events that do not count: if more of them follow, their directory is noisy."""


class FolderEvents(AbstractContextManager["FolderEvents"]):
    """Waits for changes directly in `folders`, which may or may not exist. Owns a descriptor.

    `names`: in these directories only changes of these names count. A busy /dev gets hundreds of nodes a
    second for loop devices and volumes: such a noisy directory is left to polling until it is armed again.
    """

    def __init__(
        self, folders: Iterable[Path], names: Mapping[Path, Collection[str]] | None = None
    ) -> None:
        self._folders = tuple(folders)
        self._names = names or {}
        self._watched: dict[int, Path] = {}
        self._noisy: set[int] = set()
        """Watches whose last events did not count."""
        self._changed = False
        """Whether a change was read that no wait has returned yet: a wait may be cancelled."""
        self._armed_until = -math.inf
        self._inotify: INotify | None = None
        self._notice = Notice()
        self._retry_at: float | None = None
        self._open()

    def _open(self) -> None:
        try:
            # INotify would look for the C library itself: by running ldconfig, for which the event loop waits.
            inotify_simple._libc = ctypes.CDLL(None, use_errno=True)
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            text = (
                f"no inotify: {reason_of(error)}; changes are found by polling, within seconds; "
                "raise fs.inotify.max_user_instances on the node, or ulimit -n"
            )
            self._notice.begin("inotify_exhausted", text)
        else:
            text = "inotify is available: changes are found at once again"
            self._notice.end("inotify_available", text)

    def _retry(self, now: float) -> None:
        """Try to get an instance again, `_RETRY` after the last try."""
        if self._retry_at is not None and now < self._retry_at:
            return
        if self._retry_at is not None:
            self._open()
        self._retry_at = now + _RETRY

    def __exit__(self, *_error: object) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def arm(self, now: float) -> bool:
        """Watch the directories that exist now; return whether these are all. Blocks.

        Call it before a scan, so that no change is missed; `now` is trio's time.
        """
        if self._inotify is None:
            self._retry(now)
        if self._inotify is None:
            return False
        if now < self._armed_until:
            return True
        self._armed_until = now + _ARM_AGAIN
        for folder in self._folders:
            try:
                # Adding a directory again keeps its watch.
                self._watched[self._inotify.add_watch(folder, _MASK)] = folder
            except OSError:
                self._armed_until = now  # missing, or out of watches: polling covers it
        return self._armed_until > now

    async def wait(self, longest: float) -> bool:
        """Return whether something has changed since the last `arm`: at once if so, else after `longest` seconds."""
        if self._inotify is None:
            await trio.sleep(longest)
            return False
        with trio.move_on_after(longest):
            while not self._changed:
                await trio.lowlevel.wait_readable(self._inotify.fileno())
                self._read()
                if not self._changed:
                    await trio.sleep(_IDLE_REST)
                    self._read()
                    self._leave_noisy()
                    self._read()  # the end of a watch is an event too
            await trio.sleep(_REST)
        self._read()
        changed, self._changed = self._changed, False
        return changed

    def _read(self) -> None:
        """Take the events so far, and note whether one of them counts."""
        assert self._inotify is not None
        self._noisy.clear()
        for event in self._inotify.read(timeout=0):
            if self._counts(event):
                self._changed = True
                self._armed_until = -math.inf  # a directory may be another one
            else:
                self._noisy.add(event.wd)

    def _counts(self, event: Event) -> bool:
        """Return whether the event matters; an event without a name is about the directory itself."""
        folder = self._watched.get(event.wd)
        if folder is None:  # the end of a watch that was left
            return False
        names = self._names.get(folder)
        return names is None or not event.name or event.name in names

    def _leave_noisy(self) -> None:
        """No longer watch the directories whose last events did not count, until `arm` does."""
        assert self._inotify is not None
        for watch in self._noisy:
            self._watched.pop(watch, None)
            with suppress(OSError):  # the watch has ended
                self._inotify.rm_watch(watch)
