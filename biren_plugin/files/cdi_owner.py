"""The one owner of the node's CDI file: resources hand it their devices, and it says what is on disk.

1. Whether the file may be written is decided by what was there before: nothing, then it is ours; a
   file, then it is left alone for as long as it is there, unless it may be overwritten.
2. What we wrote is ours until somebody puts another file in its place.
3. Whoever hands devices over waits no longer than it likes: a hanging disk holds up the owner's
   thread, of which there is one, and nobody else.
4. The file is looked at again from time to time: a disk that was full is written then, a file that
   was deleted is written anew, one that somebody mended counts as mended.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.cdi.spec import OnDisk, Spec, lacked, spec_for
from biren_plugin.core.model import DeviceList
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid
from biren_plugin.files import cdi_file
from biren_plugin.host.worker_thread import WorkerThread
from biren_plugin.notice import Notice, say
from biren_plugin.unix_sockets import FileIdentity

LOOK_INTERVAL: Final = 5.0
"""Seconds between looks at a file that nobody has asked to be changed."""


@attrs.frozen
class _Wanted:
    """Everything that was handed over."""

    number: int = 0
    """Of the last hand-over."""
    lists: Mapping[str, DeviceList] = attrs.Factory(dict)
    """By resource, the last one at the end."""


class OwnedFile:
    """The file at `path` as this daemon may treat it. Blocking: one thread at a time.

    `overwrite`: a file that was there before is ours too.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path = path
        self._overwrite = overwrite
        self._looked = False
        self._known: FileIdentity | None = None
        self._written: FileIdentity | None = None
        self._ours = True
        self._spec: Spec | None = None
        """What the known file holds; None where no runtime would load it."""
        self._fault = ""
        """Why none would."""
        self._unread = False
        """Whether it could not be read, for a reason that may pass."""

    def keep(self, lists: Sequence[DeviceList]) -> tuple[Spec | None, str]:
        """Makes the file hold `lists` if it may; what it holds then, and why not everything."""
        self._look()
        wanted = spec_for(lists)
        if not self._ours:
            return self._spec, self._complain(lists)
        if self._spec != wanted or self._known != self._written:
            try:
                self._put(wanted)
            except CdiFileUnusable as error:
                self._read()  # it may have come as far as the new file
                return self._spec, str(error)
        return self._spec, ""

    def _look(self) -> None:
        if not self._looked:
            cdi_file.remove_leftover(self._path)
        found = FileIdentity.of(self._path)
        if found != self._known or not self._looked:
            self._ours = found is None or self._overwrite
            self._unread = True
        if self._unread:
            self._read()
        self._looked = True

    def _read(self) -> None:
        self._known = FileIdentity.of(self._path)
        self._spec, self._fault, self._unread = None, "", False
        try:
            self._spec = cdi_file.load(self._path)
        except CdiFileUnusable as error:
            self._fault = str(error)
            self._unread = not isinstance(error, CdiSpecInvalid)

    def _put(self, wanted: Spec | None) -> None:
        if wanted is None:
            cdi_file.remove(self._path)
            text = f"{self._path} removed: the node has no card for it"
            say("cdi_removed", text, path=str(self._path))
        else:
            cdi_file.write(self._path, cdi_file.render(wanted, "yaml"))
            text = f"{self._path} written: {len(wanted['devices'])} devices"
            say("cdi_written", text, path=str(self._path))
        self._known = self._written = FileIdentity.of(self._path)
        self._spec, self._fault, self._unread = wanted, "", False

    def _complain(self, lists: Sequence[DeviceList]) -> str:
        if not any(lacked(self._spec, each.devices) for each in lists):
            return ""
        why = self._fault or f"{self._path} was there before this daemon"
        return (
            f"{why}: it is left as it is; a node whose splits change needs --overwrite-cdi-config"
        )


class CdiOwner:
    """Keeps the file at `path` in step with what is handed over, for as long as `run` runs."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self.on_disk = Board[OnDisk]()
        self._file = OwnedFile(path, overwrite=overwrite)
        self._wanted = Board[_Wanted]()
        self._thread = WorkerThread()
        self._notice = Notice()

    def hand(self, devices: DeviceList) -> int:
        """From now on the file should hold these devices of their resource, and no others of it.

        Gives the number by which `OnDisk.answers` tells that they were seen to.
        """
        return self._want(devices.resource, {devices.resource: devices})

    def forget(self, resource: str) -> None:
        """The node has no such resource any more."""
        self._want(resource, {})

    def _want(self, resource: str, lists: Mapping[str, DeviceList]) -> int:
        before = self._wanted.latest or _Wanted()
        others = {name: each for name, each in before.lists.items() if name != resource}
        self._wanted.post(_Wanted(before.number + 1, {**others, **lists}))
        return before.number + 1

    async def run(self) -> None:
        """Writes what is handed over, and posts to `on_disk` what is there then.

        Ends by raising only: `NoThread`.
        """
        with self._wanted.subscribe() as changes:
            await changes.receive()
            while True:
                wanted = self._wanted.latest or _Wanted()  # newer perhaps than what woke us
                lists = list(wanted.lists.values())
                spec, trouble = await self._thread.run(partial(self._file.keep, lists))
                self._log(lists, spec, trouble)
                self.on_disk.post(OnDisk(wanted.number, spec, trouble))
                with trio.move_on_after(LOOK_INTERVAL):
                    await changes.receive()

    def _log(self, lists: Sequence[DeviceList], spec: Spec | None, trouble: str) -> None:
        missing = [device.id for each in lists for device in lacked(spec, each.devices)]
        text = trouble
        if missing:
            text += f"; it lacks {', '.join(missing)}: Unhealthy until it has them"
        if text:
            self._notice.begin("cdi_stale", text, cards=tuple(missing))
        else:
            self._notice.end("cdi_current", f"{self.path} holds every device again")
