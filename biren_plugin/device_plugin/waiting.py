"""Shows what keeps this instance from serving the node: in the log, and in the daemon's state.

1. `flock` needs no right to write, so any process that may read the kubelet's directory can hold its lock;
   and a holder that is stopped (SIGSTOP) keeps it. A holder that answers no call while there are cards is
   named, and this instance is not ready meanwhile.
2. The holder's sockets are tried in a task of its own: a holder that hangs must not delay the next try
   of the lock.
"""

from functools import partial
from typing import Final

import trio

from biren_plugin.device_plugin.folder_lock import Hindrance, find_lock_holder
from biren_plugin.device_plugin.node import Node
from biren_plugin.errors import NoThread
from biren_plugin.notice import INFO, Notice
from biren_plugin.wire.server_check import why_silent
from biren_plugin.worker_thread import WorkerThread

IDLE_AFTER: Final = 5.0
"""Seconds without an answer: a holder that ends or restarts takes less."""
CHECK_INTERVAL: Final = 1.0
"""Seconds between tries of the holder's sockets."""
DESCRIBE_INTERVAL: Final = 30.0
"""Seconds after which an idle holder is identified again: another process may have taken its place."""
ANSWER_DEADLINE: Final = 2.0
"""Seconds for each of them."""
_PROC_DEADLINE: Final = 2.0
"""Seconds: reading the command line of a hung process may hang too."""


class Waiting:
    """One wait for the lock."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wait = Notice()
        self._unwritable = Notice()
        self._idle = Notice()
        self._idle_since: float | None = None
        self._described_at = 0.0
        self._thread = WorkerThread()

    def hindered(self, hindrance: Hindrance) -> None:
        """Note a failed try for the lock."""
        path, state = self._node.path, self._node.state
        if hindrance == "unwritable":
            state.hindrance = (
                f"cannot create a socket in {path}: not serving; "
                "run the daemon as root, with that directory mounted for writing"
            )
            self._unwritable.begin("folder_unwritable", state.hindrance)
        elif hindrance == "held":
            self._end_unwritable()
            text = f"another instance holds {path}: standing by, ready to take over"
            self._wait.begin("standing_by", text, INFO)
        if hindrance == "held":
            if state.role != "standing by":
                state.hindrance = ""  # of the wait before
            state.role = "standing by"
            return
        state.role = "waiting"
        self._idle_since = None
        self._idle.forget()
        if hindrance == "missing":
            folder = self._node.folder.latest
            trouble = folder.trouble if folder is not None else ""
            state.hindrance = (
                f"the kubelet's directory cannot be read: {trouble}"
                if trouble
                else "the kubelet's directory does not exist yet"
            )

    def over(self) -> None:
        """Note that the lock was taken."""
        self._node.state.hindrance = ""
        self._end_unwritable()
        if self._node.state.role == "standing by":
            text = f"the other instance has released {self._node.path}: taking over"
            self._wait.end("taking_over", text)

    def _end_unwritable(self) -> None:
        text = f"sockets can be created in {self._node.path} again"
        self._unwritable.end("folder_writable", text)

    async def watch_holder(self) -> None:
        """Try the holder's sockets while this instance stands by; runs until cancelled."""
        while True:
            if self._node.state.role == "standing by":
                await self._check_holder()
            await trio.sleep(CHECK_INTERVAL)

    async def _check_holder(self) -> None:
        began = trio.current_time()
        silence = await self._why_idle()
        if self._node.state.role != "standing by":
            return
        if not silence:
            self._idle_since = None
            self._node.state.hindrance = ""
            text = (
                f"the holder of the lock on {self._node.path} serves the node, or no card is left"
            )
            self._idle.end("holder_serves", text)
            return
        if self._idle_since is None:
            self._idle_since = began
        now, known = trio.current_time(), self._node.state.hindrance
        is_due = not known or now - self._described_at >= DESCRIBE_INTERVAL
        if now - self._idle_since >= IDLE_AFTER and is_due:
            self._described_at = now
            text = await self._describe_holder(silence)
            if self._node.state.role == "standing by":
                self._node.state.hindrance = text
                self._idle.begin("holder_idle", text)

    async def _why_idle(self) -> str:
        """Return why the holder serves none of the node's cards; empty if it does, or if there are none."""
        inventory = self._node.state.inventory.latest
        if inventory is None or not inventory.lists:
            return ""
        folder = self._node.folder.latest
        names = sorted(folder.ours) if folder is not None else []
        silence = "serves no GPU of this node"
        for name in names:
            try:
                why = await why_silent(self._node.path / name, ANSWER_DEADLINE, self._node.thread)
            except (PermissionError, NoThread):  # it may be served
                return ""
            if not why:
                return ""
            silence = f"serves no GPU of this node ({name}: {why})"
        return silence

    async def _describe_holder(self, silence: str) -> str:
        path = self._node.path
        holder = None
        try:
            with trio.move_on_after(_PROC_DEADLINE):
                holder = await self._thread.run(partial(find_lock_holder, path))
        except NoThread:
            pass  # the line is worth more than the command in it
        return (
            f"{holder or 'a process that is not visible from here'} holds the lock on {path} and {silence}: "
            "end that process, and this instance takes over"
            + (
                ""
                if holder is not None
                else f"; on the node, `lslocks` or `fuser -v {path}` shows its id"
            )
        )
