"""What keeps this instance from serving the node: in the log, and in the daemon's state.

`flock` needs no right to write, so whoever may read the kubelet's directory can hold its lock: a holder
that serves nothing while there are cards is named, and this instance is not ready meanwhile.
"""

from typing import Final

import trio

from biren_plugin.device_plugin.folder_lock import Hindrance
from biren_plugin.device_plugin.node import Node
from biren_plugin.host.lock_holder import find_lock_holder
from biren_plugin.notice import INFO, Notice
from biren_plugin.unix_sockets import is_served

IDLE_AFTER: Final = 5.0
"""Seconds without a served socket: a holder that ends or starts again is back sooner."""
READ_INTERVAL: Final = 1.0
"""Seconds between tries of the holder's sockets."""


class Waiting:
    """One wait for the lock."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wait = Notice()
        self._idle = Notice()
        self._idle_since: float | None = None
        self._checked_at = -READ_INTERVAL

    async def hindered(self, hindrance: Hindrance) -> None:
        """The lock was tried in vain; called after each try."""
        path, state = self._node.path, self._node.state
        if hindrance == "held":
            state.role = "standing by"
            text = f"another instance holds {path}: standing by, ready to take over"
            self._wait.begin("standing_by", text, INFO)
            await self._check_holder()
            return
        state.role = "waiting"
        state.hindrance = ""
        if hindrance == "unwritable":
            state.hindrance = (
                f"cannot create a socket in {path}: not serving; "
                "run the daemon as root, with that directory mounted for writing"
            )
            self._wait.begin("folder_unwritable", state.hindrance)

    def over(self) -> None:
        """The lock was taken."""
        self._node.state.hindrance = ""
        if self._node.state.role == "standing by":
            text = f"the other instance has released {self._node.path}: taking over"
            self._wait.end("taking_over", text)

    async def _check_holder(self) -> None:
        now = trio.current_time()
        if now < self._checked_at + READ_INTERVAL:
            return
        self._checked_at = now
        if not self._has_cards() or await self._is_served():
            self._idle_since = None
            self._node.state.hindrance = ""
            self._idle.forget()
            return
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since >= IDLE_AFTER:
            self._node.state.hindrance = self._describe_holder()
            self._idle.begin("holder_idle", self._node.state.hindrance)

    def _has_cards(self) -> bool:
        inventory = self._node.state.inventory.latest
        return inventory is not None and bool(inventory.lists)

    async def _is_served(self) -> bool:
        folder = self._node.folder.latest
        names = folder.ours if folder is not None else ()
        for name in names:
            if await is_served(self._node.path / name):
                return True
        return False

    def _describe_holder(self) -> str:
        path = self._node.path
        holder = find_lock_holder(path)
        return (
            f"{holder or 'a process that is not visible from here'} holds the lock on {path} and serves "
            "no GPU of this node: end that process, and this instance takes over"
            + ("" if holder is not None else "; on the node, `lslocks` shows its id")
        )
