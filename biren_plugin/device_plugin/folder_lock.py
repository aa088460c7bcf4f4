"""One daemon for each kubelet folder: the lock that passes from an old pod to a new one.

The lock is `flock` on the folder's own descriptor: it works across read-only bind mounts, survives
the kubelet's wipe of the folder, and dies with its holder, however that ends.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import trio

from biren_plugin.board import Board
from biren_plugin.device_plugin.folder import KubeletFolder
from biren_plugin.errors import FolderDead, reason_of
from biren_plugin.notice import WARNING, say

_OFTEN: Final = 0.02
_SELDOM: Final = 0.25
"""Seconds between tries: the kubelet's count is gone while nobody holds the folder."""
_LIVELY: Final = 3.0
"""Seconds after a change in the folder in which the holder may let go."""
_LOOK_INTERVAL: Final = 1.0


Hindrance = Literal["missing", "unwritable", "held"]
"""Why the lock cannot be taken: there is no such directory, nothing can be created in it, or somebody
else has the lock."""


def _ignore(_hindrance: Hindrance) -> None:
    pass


class HeldFolder:
    """A folder that this daemon alone serves, for as long as the context lasts."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)  # and with it the lock

    async def until_replaced(self, folder: Board[KubeletFolder]) -> None:
        """Returns when `path` is gone or leads to another folder; `folder` says when to look.

        Raises `FolderDead` when the path itself leads to a deleted folder, as a bind mount does whose
        source was made anew: nothing can be created in it ever again.
        """
        with folder.subscribe() as changes:
            while self._is_there():
                if os.fstat(self._descriptor).st_nlink == 0:
                    raise FolderDead(
                        f"{self._path} was deleted under its mount and made anew elsewhere: "
                        "this process cannot reach the new one; restart the pod"
                    )
                with trio.move_on_after(_LOOK_INTERVAL):
                    await changes.receive()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False


async def hold_folder(
    path: Path,
    folder: Board[KubeletFolder],
    on_hindrance: Callable[[Hindrance], object] = _ignore,
) -> HeldFolder:
    """Waits until the directory is there, can be written, and nobody else holds it.

    `on_hindrance` is called after each try in vain. Tries often for a while after each change in the
    directory: the holder takes its sockets away before it lets go.
    """
    with folder.subscribe() as changes:
        lively_until = trio.current_time()
        while True:
            held: HeldFolder | Hindrance = "missing"
            if folder.latest is not None and folder.latest.exists:
                held = _try(path)
            if isinstance(held, HeldFolder):
                return held
            on_hindrance(held)
            lively = trio.current_time() < lively_until
            with trio.move_on_after(_OFTEN if lively else _SELDOM):
                await changes.receive()
                lively_until = trio.current_time() + _LIVELY


def _try(path: Path) -> HeldFolder | Hindrance:
    """The lock, or why it was not taken.

    Whoever cannot create a socket there leaves the lock to somebody who can.
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
        # A file system without locks: serve all the same, as plugins without a lock do.
        reason = reason_of(error)
        text = f"cannot lock {path}: {reason}; make sure that only one instance runs on the node"
        say("no_lock", text, WARNING, reason=reason)
    if not held._is_there():
        os.close(descriptor)
        return "missing"
    return held
