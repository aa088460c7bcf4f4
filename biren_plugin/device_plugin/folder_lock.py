"""One daemon for each kubelet directory: the lock that passes from an old pod to a new one, and its holder.

The lock is `flock` on the directory's own descriptor: it works across read-only bind mounts, survives
the kubelet's cleanup of the directory, and ends with its holder in any case. A thread waits for that end in
the kernel, so a successor has the lock within a millisecond, also of a holder that was killed. Which
process holds it stands in `/proc/locks`, except for a process in a PID namespace that is not visible from
here.
"""

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

import outcome
import trio

from biren_plugin.board import Board
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder
from biren_plugin.errors import FolderDead, NoThread, reason_of
from biren_plugin.host.host_paths import NOT_THERE
from biren_plugin.notice import WARNING, say
from biren_plugin.worker_thread import WorkerThread

_RETRY: Final = 1.0
"""Seconds between tries without a release of the lock, or without a change in the directory."""


Hindrance = Literal["missing", "unwritable", "held"]
"""Why the lock cannot be taken: there is no such directory, nothing can be created in it, or another
process has the lock."""


def _ignore(_hindrance: Hindrance) -> None:
    pass


class HeldFolder(AbstractContextManager["HeldFolder"]):
    """A directory that only this daemon serves, for as long as the context lasts."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._thread = WorkerThread()

    def __exit__(self, *_error: object) -> None:
        # Not in a thread: closing a directory waits for nothing, and a lock that outlived the
        # context would hold up the next instance.
        self.close()

    def close(self) -> None:
        """Close the descriptor, and release the lock with it."""
        os.close(self._descriptor)

    async def until_replaced(self, folder: Board[KubeletFolder]) -> None:
        """Return when `path` is gone or leads to another directory; checks after each read of `folder`.

        Raises `FolderDead` when the path itself leads to a deleted directory, as a bind mount does whose
        source was re-created: nothing can be created in it ever again.
        """
        with folder.subscribe() as changes:
            # While the disk hangs or fails, the directory counts as unchanged.
            while (links := await self._thread.run_or(self._links, otherwise=1)) is not None:
                if links == 0:
                    raise FolderDead(
                        f"{self._path} was deleted under its mount and re-created elsewhere: "
                        "this process cannot reach the new one; restart the pod"
                    )
                await changes.receive()

    def _links(self) -> int | None:
        """Return the directory's number of names; None if the path does not lead to it. Blocks."""
        try:
            there, held = os.stat(self._path), os.fstat(self._descriptor)
        except OSError as error:
            return None if error.errno in NOT_THERE else 1
        return held.st_nlink if os.path.samestat(there, held) else None


async def hold_folder(
    path: Path,
    folder: Board[KubeletFolder],
    on_hindrance: Callable[[Hindrance], object] = _ignore,
) -> HeldFolder:
    """Wait until the directory exists and is writable, and hold it once no other process does.

    `on_hindrance` is called after each failed try.
    """
    thread = WorkerThread()
    with folder.subscribe() as changes:
        while True:
            held: HeldFolder | Hindrance | None = None  # not known yet
            if folder.latest is not None and not folder.latest.exists:
                held = "missing"
            elif folder.latest is not None:
                # However long a disk hangs, which whoever reads the directory logs, as it does `NoThread`.
                with suppress(NoThread):
                    held = await thread.acquire(partial(_try, path), _release)
            if isinstance(held, HeldFolder):
                return held
            if held is not None:
                on_hindrance(held)
            with trio.move_on_after(_RETRY):
                if held == "held":
                    await _next_release(path).wait()
                else:
                    await changes.receive()


WAITING_THREAD: Final = "lock_release"
"""The name of the thread that waits for the lock."""
_awaited: Final = trio.lowlevel.RunVar[trio.Event | None]("awaited release", None)
"""The release that a thread waits for. Nothing ends a thread that waits for a lock, so a process has one at
most, also after its task was cancelled or the directory was replaced; the next try then finds the lock."""


def _next_release(path: Path) -> trio.Event:
    """Return the event of the next release of the lock on `path`, or on the directory that was there before."""
    if (awaited := _awaited.get()) is not None:
        return awaited
    released = trio.Event()
    notify = partial(_notify, trio.lowlevel.current_trio_token(), released)
    with suppress(RuntimeError):  # processes have run out on the node
        trio.lowlevel.start_thread_soon(partial(_await_lock, path), notify, WAITING_THREAD)
        _awaited.set(released)
    return released


def _await_lock(path: Path) -> None:
    """Return once the lock on `path` was free. Blocks; raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _notify(
    token: trio.lowlevel.TrioToken, released: trio.Event, waited: outcome.Outcome[None]
) -> None:
    """Called in the thread."""
    with suppress(trio.RunFinishedError):  # no task waits any more
        token.run_sync_soon(_end_wait, released, waited)


def _end_wait(released: trio.Event, waited: outcome.Outcome[None]) -> None:
    _awaited.set(None)
    if isinstance(waited, outcome.Value):
        released.set()


def _release(held: HeldFolder | Hindrance | None) -> None:
    if isinstance(held, HeldFolder):
        held.close()


def _try(path: Path) -> HeldFolder | Hindrance:
    """Return the lock, or why it was not taken. Blocks.

    An instance that cannot create a socket there leaves the lock to one that can.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return "missing"
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        os.close(descriptor)
        return "unwritable"
    held = HeldFolder(path, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return "held"
    except OSError as error:
        # A file system without locks: serve anyway, as plugins without a lock do.
        reason = reason_of(error)
        text = f"cannot lock {path}: {reason}; make sure that only one instance runs on the node"
        say("no_lock", text, WARNING, reason=reason)
    if held._links() is None:
        os.close(descriptor)
        return "missing"
    return held


_PROC = Path("/proc")
_LONGEST = 80


class LockHolder(NamedTuple):
    """A process that holds a lock."""

    pid: int
    command: str
    """Its command line, cut short; empty if it cannot be read."""

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")


def find_lock_holder(path: Path) -> LockHolder | None:
    """Return the process that holds a `flock` on `path`; None if no holder is visible from here.

    The kernel names the process that took the lock. If that one has ended, a process that it started, which may
    be invisible, holds the lock by a descriptor that it inherited.
    """
    try:
        status = path.stat()
        text = (_PROC / "locks").read_text(errors="replace")
    except OSError:
        return None
    pid = pid_of_lock(text, status.st_dev, status.st_ino)
    if pid is not None and not (_PROC / str(pid)).exists():
        pid = _opener(status, {os.getpid(), *_waiting_pids(text)})
    return LockHolder(pid, _command(pid)) if pid is not None else None


def _waiting_pids(text: str) -> Iterator[int]:
    for line in text.splitlines():
        match line.split():
            case [_, "->", "FLOCK", _, _, pid, *_] if pid.isdigit():
                yield int(pid)


def _opener(wanted: os.stat_result, others: Collection[int]) -> int | None:
    """Return a process, not one of the `others`, that has the directory open; None if none is visible."""
    for pid in sorted(int(each) for each in os.listdir(_PROC) if each.isdigit()):
        if pid in others:
            continue
        try:
            with os.scandir(_PROC / str(pid) / "fd") as descriptors:
                if any(os.path.samestat(each.stat(), wanted) for each in descriptors):
                    return pid
        except OSError:  # it has ended, or belongs to another user
            continue
    return None


def pid_of_lock(text: str, device: int, inode: int) -> int | None:
    """Return the holder's process id in the text of `/proc/locks`.

    A line reads `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`, a waiter's `1: -> FLOCK ...`. On file
    systems built on others (overlay, btrfs), whose own device has major number 0, the line has another
    device, and the inode decides. On any other file system both must match.
    """
    exact = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    found: int | None = None
    for line in text.splitlines():
        match line.split():
            case [_, "FLOCK", _, _, pid, file, *_] if pid.isdigit() and int(pid) > 0:
                if file == exact:
                    return int(pid)
                same_inode = file.rpartition(":")[2] == str(inode)
                if same_inode and os.major(device) == 0 and found is None:
                    found = int(pid)
    return found


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = b" ".join(words).decode(errors="replace").strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
