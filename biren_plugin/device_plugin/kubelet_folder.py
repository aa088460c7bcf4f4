"""Watches the directory where the kubelet and the plugins keep their sockets, and posts its content."""

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.errors import reason_and_cure, too_slow
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.host_paths import NOT_THERE
from biren_plugin.notice import Notice, say
from biren_plugin.records import frozen
from biren_plugin.shared_wakeups import until_wakeup
from biren_plugin.unix_sockets import FileIdentity, is_abandoned
from biren_plugin.worker_thread import PATIENCE, WorkerThread

T = TypeVar("T")

KUBELET_SOCKET: Final = "kubelet.sock"
INTERVAL: Final = 10.0
"""Seconds between reads without an event."""
UNWATCHED: Final = 1.0
"""The same where no event can come."""


@frozen
class KubeletFolder:
    """The sockets in the kubelet's directory at one moment."""

    exists: bool = False
    trouble: str = ""
    """Why the directory cannot be read, though it may exist, and what to do; empty if it can be read."""
    sockets: Mapping[str, FileIdentity] = attrs.Factory(dict)
    """By file name, including `kubelet.sock`."""

    @property
    def kubelet(self) -> FileIdentity | None:
        """Return the kubelet's socket; another identity means another kubelet."""
        return self.sockets.get(KUBELET_SOCKET)

    @property
    def foreign(self) -> Mapping[str, FileIdentity]:
        """Return the sockets of other plugins."""
        others = {KUBELET_SOCKET, *_OURS}
        return {name: each for name, each in self.sockets.items() if name not in others}

    @property
    def ours(self) -> Collection[str]:
        """Return the names of sockets of this plugin's instances."""
        return self.sockets.keys() & _OURS


def socket_name(resource: str) -> str:
    """Return `birentech.com-1-2-gpu.sock` for `birentech.com/1-2-gpu`."""
    return resource.replace("/", "-") + ".sock"


_OURS: Final = frozenset(map(socket_name, (*RESOURCE_OF_SPLIT.values(), MONITORING_RESOURCE)))


def remove_abandoned(path: Path) -> list[str]:
    """Remove this plugin's sockets that no process serves, left by a killed daemon; return their names.

    Only for the instance that holds the directory. A socket that is served, or that cannot be judged,
    stays. Blocks.
    """
    removed = []
    for name in sorted(_OURS):
        if is_abandoned(path / name):
            with suppress(OSError):  # already gone, or the directory cannot be written
                (path / name).unlink()
                removed.append(name)
    return removed


def read_kubelet_folder(path: Path) -> KubeletFolder:
    """Read the directory. Blocks, for as long as its disk hangs. Never raises."""
    try:
        names = [name for name in os.listdir(path) if name.endswith(".sock")]
    except OSError as error:
        is_gone = error.errno in NOT_THERE
        return KubeletFolder(trouble="" if is_gone else reason_and_cure(error))
    found = {name: FileIdentity.of(path / name) for name in names}
    return KubeletFolder(
        exists=True, sockets={name: each for name, each in found.items() if each is not None}
    )


async def watch_kubelet_folder(
    path: Path,
    folder_events: FolderEvents,
    board: Board[KubeletFolder],
    notice: Notice | None = None,
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Post the directory's content after each read; what is missing begins in `notice`.

    A directory that cannot be read any more keeps its last content: the sockets in it work on.

    `on_turn` gets the seconds that each read took.
    """
    notice = notice or Notice()
    thread = WorkerThread()
    kubelet: FileIdentity | None = None
    while True:
        began = trio.current_time()
        read = partial(_read_armed, path, folder_events, began)
        current, is_watched = await _read_patiently(path, read, thread, notice)
        if current.trouble and board.latest is not None:
            current = attrs.evolve(board.latest, trouble=current.trouble)
        if kubelet is not None and current.kubelet not in (None, kubelet):
            say("kubelet_restarted", "the kubelet has restarted")
            notice.forget()
        _log(board.latest or KubeletFolder(), current, path, notice)
        kubelet = current.kubelet or kubelet
        board.post(current)
        on_turn(trio.current_time() - began)
        await folder_events.wait(until_wakeup(INTERVAL if is_watched else UNWATCHED))


def _read_armed(path: Path, events: FolderEvents, now: float) -> tuple[KubeletFolder, bool]:
    """Return the directory's content, and whether each later change of it is an event. Blocks."""
    is_watched = events.arm(now)
    return read_kubelet_folder(path), is_watched


async def _read_patiently(
    path: Path, read: Callable[[], T], thread: WorkerThread, notice: Notice
) -> T:
    """Return the result of `read`, after logging once that it hangs. Raises `NoThread`.

    What was read before stands meanwhile.
    """
    while True:
        with trio.move_on_after(PATIENCE):
            return await thread.run(read)
        reason = too_slow("reading it", PATIENCE)
        notice.begin("folder_unreadable", f"waiting for {path}: {reason}", reason=reason)


def _log(before: KubeletFolder, folder: KubeletFolder, path: Path, notice: Notice) -> None:
    if folder.trouble:
        text = f"waiting for {path}: {folder.trouble}"
        notice.begin("folder_unreadable", text, reason=folder.trouble)
    elif not folder.exists:
        text = f"waiting for {path}: no such directory; is it mounted into the container?"
        notice.begin("folder_missing", text)
    elif folder.kubelet is None:
        if before.kubelet is None:  # a restarting kubelet is back at the next read
            notice.begin("kubelet_missing", f"waiting for the kubelet: no {path / KUBELET_SOCKET}")
    else:
        notice.end("kubelet_found", f"the kubelet's socket is there: {path / KUBELET_SOCKET}")
