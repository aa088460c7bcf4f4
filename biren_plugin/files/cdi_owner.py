"""The one owner of the node's CDI file: resources pass it their devices, and it posts what is on disk.

1. Passing devices never blocks: a hanging disk delays the owner's one thread, and nothing else. Callers
   decide how long they wait for the result.
2. The file is read every `READ_INTERVAL`: after a full disk it is written then, a deleted file is
   written again, and a corrected file counts as corrected.
3. An instance that stands by has read the file and writes nothing, as it was passed no devices: it takes
   over as fast as without CDI.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from biren_plugin.board import Board
from biren_plugin.core.cdi.findings import OnDisk
from biren_plugin.core.model import DeviceList
from biren_plugin.files.owned_file import OwnedFile
from biren_plugin.notice import Notice
from biren_plugin.patient_calls import run_patiently
from biren_plugin.records import frozen
from biren_plugin.worker_thread import WorkerThread

T = TypeVar("T")

READ_INTERVAL: Final = 5.0
"""Seconds between reads of a file while no change is requested."""
FIRST_READ_DEADLINE: Final = 2.0
"""Seconds: the lock on the kubelet's directory is not taken until then. A disk may hang."""
LET_GO_DEADLINE: Final = 1.0
"""Seconds: the lock on the kubelet's directory is held until then."""


@frozen
class _Wanted:
    """Everything that the file should hold."""

    number: int = 0
    """Of the last request."""
    lists: Mapping[str, DeviceList] | None = None
    """By resource, the last change at the end; None: the file belongs to another instance."""


class CdiOwner:
    """Keeps the file at `path` equal to what was passed in, as long as `run` runs."""

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool,
        host_root: Path = Path("/"),
        hanging: Notice | None = None,
    ) -> None:
        """Own the file at `path`. `hanging`: where a hang of its disk begins and ends."""
        self.path = path
        self.on_disk = Board[OnDisk]()
        self._file = OwnedFile(path, overwrite=overwrite, host_root=host_root)
        self._wanted = Board[_Wanted]()
        self._thread = WorkerThread()
        self._notice = Notice()
        self._hanging = hanging or Notice()
        self._was_read = trio.Event()

    async def until_read(self) -> None:
        """Return once the file was read and the YAML library is there, or after `FIRST_READ_DEADLINE`."""
        with trio.move_on_after(FIRST_READ_DEADLINE):
            await self._was_read.wait()

    def hand(self, devices: DeviceList) -> int:
        """Request that the file hold these devices of their resource, and no others of it.

        Returns the request's number; `OnDisk.answers` reaches it once the request was handled.
        """
        return self._want({**self._lists_without(devices.resource), devices.resource: devices})

    def forget(self, resource: str) -> None:
        """Request that the file hold no device of `resource`, which the node no longer has."""
        self._want(self._lists_without(resource))

    def forget_all(self) -> None:
        """Request that the file be removed, if it may be written: the node has no card."""
        self._want({})

    async def let_go(self) -> None:
        """Stop writing: the file belongs to another instance from now on.

        Waits for a write under way, at most `LET_GO_DEADLINE`; one that hangs for longer is dropped
        when it comes back. Not to be cancelled.
        """
        self._want(None)
        with trio.move_on_after(LET_GO_DEADLINE, shield=True):
            await self._thread.wait_idle()

    def _is_ours(self) -> bool:
        """Whether the file belongs to this instance. Any thread may ask."""
        return self._wanted.latest is not None and self._wanted.latest.lists is not None

    def _lists_without(self, resource: str) -> dict[str, DeviceList]:
        lists = (self._wanted.latest or _Wanted()).lists or {}
        return {name: each for name, each in lists.items() if name != resource}

    def _want(self, lists: Mapping[str, DeviceList] | None) -> int:
        number = (self._wanted.latest or _Wanted()).number + 1
        self._wanted.post(_Wanted(number, lists))
        return number

    async def run(self) -> None:
        """Write what is requested, and post to `on_disk` what the file then holds.

        Runs until cancelled. Raises `NoThread`.
        """
        await self._patiently(self._file.get_ready)
        self._was_read.set()
        with self._wanted.subscribe() as changes:
            await changes.receive()
            while True:
                wanted = self._wanted.latest or _Wanted()  # may be newer than what woke this task
                if wanted.lists is None:
                    await changes.receive()
                    continue
                lists = list(wanted.lists.values())
                spec, findings = await self._patiently(
                    partial(self._file.keep, lists, self._is_ours)
                )
                if not self._is_ours():
                    continue
                on_disk = OnDisk(wanted.number, spec, findings)
                self._log(on_disk)
                self.on_disk.post(on_disk)
                with trio.move_on_after(READ_INTERVAL):
                    await changes.receive()

    async def _patiently(self, call: Callable[[], T]) -> T:
        doing = f"reading or writing {self.path}"
        return await run_patiently(self._thread, call, self._hanging, doing)

    def _log(self, on_disk: OnDisk) -> None:
        if on_disk.findings:
            names = tuple(on_disk.withheld)
            parts = [each.text for each in on_disk.findings]
            cures = dict.fromkeys(each.cure for each in on_disk.findings if each.cure)
            if cures:
                parts.append(f"it is left as it is; {'; '.join(cures)}")
            there = {each["name"] for each in on_disk.spec["devices"]} if on_disk.spec else set()
            if lacking := [name for name in names if name not in there]:
                parts.append(f"it lacks {', '.join(lacking)}: Unhealthy until it has them")
            if useless := [name for name in names if name in there]:
                parts.append(f"{', '.join(useless)}: Unhealthy until then")
            self._notice.begin("cdi_stale", "; ".join(parts), cards=names)
        else:
            self._notice.end("cdi_current", f"{self.path} serves every device again")
