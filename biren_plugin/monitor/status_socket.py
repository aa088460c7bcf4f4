"""The local socket that tells the daemon's status: whoever may connect gets one document.

1. The folder is 0700 and the socket in it 0600: root's, or the daemon's own user's.
2. The newest daemon has the socket: it replaces the file, and an older one's end leaves it alone.
   When the newer one has gone, the older one listens again, within `LOOK_INTERVAL`.
3. Nothing is read from who asks; who does not read loses the connection after `DEADLINE`.
"""

import json
import os
from pathlib import Path
from typing import Final

import trio

from biren_plugin.core.settings import STATUS_SOCKET
from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import SocketUnusable, reason_of
from biren_plugin.monitor.status import status_document
from biren_plugin.notice import say_bug
from biren_plugin.unix_sockets import FileIdentity, UnixListener, is_served

LOOK_INTERVAL: Final = 2.0
ASK_DEADLINE: Final = 0.5
DEADLINE: Final = 5.0
"""Seconds."""
CONNECTIONS: Final = 8


async def serve_status(folder: Path, state: DaemonState) -> None:
    """Serves until cancelled. Raises `SocketUnusable`."""
    room = trio.CapacityLimiter(CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        with trio.move_on_after(DEADLINE):
            async with stream:
                if room.available_tokens < 1:
                    return
                try:
                    async with room:
                        await _ask_holders(state)
                        document = json.dumps(status_document(state), ensure_ascii=False)
                        await stream.send_all(document.encode() + b"\n")
                except trio.BrokenResourceError:
                    return  # has seen enough
                except Exception as error:  # noqa: BLE001 - a bug here must not take the daemon along
                    say_bug("the status failed on a bug of the plugin", error, "status")

    while True:
        listener = _listen(folder)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            await _until_nobody_serves(listener)
            nursery.cancel_scope.cancel()


async def _ask_holders(state: DaemonState) -> None:
    """Has the kubelet asked who holds what now, and waits for the answer, for a moment."""
    if state.kubelet_view.latest is None:  # it was never asked: the daemon has just started
        return
    asked = trio.current_time()
    state.doubt_for(ASK_DEADLINE)
    with trio.move_on_after(ASK_DEADLINE):
        await state.kubelet_view.wait_for(lambda view: view.at >= asked)


def _listen(folder: Path) -> UnixListener:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if set(os.listdir(folder)) <= {STATUS_SOCKET}:  # a folder of others keeps its mode
            folder.chmod(0o700)  # as when it is mounted into the container
        return UnixListener(folder / STATUS_SOCKET)
    except OSError as error:
        raise SocketUnusable(
            f"`status` cannot be answered: {error.filename or folder}: {reason_of(error)}; "
            "see --status-dir"
        ) from error


async def _until_nobody_serves(ours: UnixListener) -> None:
    """Returns when our file is gone, or another's is there that nobody listens on any more."""
    while True:
        await trio.sleep(LOOK_INTERVAL)
        there = FileIdentity.of(ours.path)
        if there == ours.identity:
            continue
        if there is None or not await is_served(ours.path):
            return
