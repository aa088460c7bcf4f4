"""The one owner of the node's CDI file: resources hand it their devices, and it posts what is on disk.

1. Callers that hand devices over wait as long as they like: a hanging disk holds up the owner's
   thread, of which there is one, and nobody else.
2. The file is read again from time to time: a disk that was full is written then, a file that was
   deleted is written again, one that somebody corrected counts as corrected.
3. An instance that stands by reads the file, and writes nothing: nothing was handed over to it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.cdi.findings import OnDisk
from biren_plugin.core.model import DeviceList
from biren_plugin.files.owned_file import OwnedFile
from biren_plugin.host.worker_thread import WorkerThread
from biren_plugin.notice import Notice

READ_INTERVAL: Final = 5.0
"""Seconds between reads of a file that nobody has asked to be changed."""


@attrs.frozen
class _Wanted:
    """Everything that was handed over."""

    number: int = 0
    """Of the last hand-over."""
    lists: Mapping[str, DeviceList] | None = None
    """By resource, the last one at the end; None: the file is another instance's."""


class CdiOwner:
    """Keeps the file at `path` in step with what is handed over, for as long as `run` runs."""

    def __init__(self, path: Path, *, overwrite: bool, host_root: Path = Path("/")) -> None:
        self.path = path
        self.on_disk = Board[OnDisk]()
        self._file = OwnedFile(path, overwrite=overwrite, host_root=host_root)
        self._wanted = Board[_Wanted]()
        self._thread = WorkerThread()
        self._notice = Notice()

    def hand(self, devices: DeviceList) -> int:
        """From now on the file should hold these devices of their resource, and no others of it.

        Gives the number by which `OnDisk.answers` says that they were seen to.
        """
        return self._want({**self._lists_without(devices.resource), devices.resource: devices})

    def forget(self, resource: str) -> None:
        """The node has no such resource any more."""
        self._want(self._lists_without(resource))

    def forget_all(self) -> None:
        """The node has no card: a file that may be written goes."""
        self._want({})

    def let_go(self) -> None:
        """Another instance may serve the node: the file is its own from now on."""
        self._want(None)

    def _lists_without(self, resource: str) -> dict[str, DeviceList]:
        lists = (self._wanted.latest or _Wanted()).lists or {}
        return {name: each for name, each in lists.items() if name != resource}

    def _want(self, lists: Mapping[str, DeviceList] | None) -> int:
        number = (self._wanted.latest or _Wanted()).number + 1
        self._wanted.post(_Wanted(number, lists))
        return number

    async def run(self) -> None:
        """Writes what is handed over, and posts to `on_disk` what is there then.

        Ends by raising only: `NoThread`.
        """
        await self._thread.run(self._file.get_ready)
        with self._wanted.subscribe() as changes:
            await changes.receive()
            while True:
                wanted = self._wanted.latest or _Wanted()  # newer perhaps than what woke us
                if wanted.lists is None:
                    await changes.receive()
                    continue
                lists = list(wanted.lists.values())
                spec, findings = await self._thread.run(partial(self._file.keep, lists))
                on_disk = OnDisk(wanted.number, spec, findings)
                self._log(on_disk)
                self.on_disk.post(on_disk)
                with trio.move_on_after(READ_INTERVAL):
                    await changes.receive()

    def _log(self, on_disk: OnDisk) -> None:
        if on_disk.findings:
            names = tuple(on_disk.withheld)
            parts = [each.text for each in on_disk.findings]
            cures = dict.fromkeys(each.cure for each in on_disk.findings if each.cure)
            if cures:
                parts.append(f"it is left as it is; {'; '.join(cures)}")
            if names:
                parts.append(f"it lacks {', '.join(names)}: Unhealthy until it has them")
            self._notice.begin("cdi_stale", "; ".join(parts), cards=names)
        else:
            self._notice.end("cdi_current", f"{self.path} serves every device again")
