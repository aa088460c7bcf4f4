"""The local socket that reports the daemon's status: each permitted peer gets one document.

1. The directory has mode 0700 and the socket in it 0600; their owner is root, or the daemon's own user.
2. The newest daemon has the socket: it replaces the file, and an older daemon that ends does not remove
   it. When the newer daemon has gone, the older one listens again within `LOOK_INTERVAL`.
3. Nothing is read from the peer; a peer that does not read loses the connection after `DEADLINE`.
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
    """Serve until cancelled. Raises `SocketUnusable`."""
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
                    return  # the peer has left
                except Exception as error:  # noqa: BLE001 - a bug here must not end the daemon
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
    state.ask_soon(ASK_DEADLINE)
    with trio.move_on_after(ASK_DEADLINE):
        await state.kubelet_view.wait_for(lambda view: view.at >= asked)


def _listen(folder: Path) -> UnixListener:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if set(os.listdir(folder)) <= {
            STATUS_SOCKET
        }:  # a directory with other files keeps its mode
            folder.chmod(0o700)  # needed when it is mounted into the container
        return UnixListener(folder / STATUS_SOCKET)
    except OSError as error:
        raise SocketUnusable(
            f"`status` cannot be answered: {error.filename or folder}: {reason_of(error)}; "
            "see --status-dir"
        ) from error


async def _until_nobody_serves(ours: UnixListener) -> None:
    """Return when our file is gone, or when another instance's file has no listener any more."""
    while True:
        await trio.sleep(LOOK_INTERVAL)
        there = FileIdentity.of(ours.path)
        if there == ours.identity:
            continue
        if there is None or not await is_served(ours.path):
            return
