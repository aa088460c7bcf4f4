"""Register with the kubelet, and stay registered.

A registration is worth nothing by itself: it counts while the kubelet holds a `ListAndWatch` stream
open. Whatever ends it, ends the subtree, so that the next life starts with a fresh socket and no
old stream: kubelet 1.36 takes lists from an old stream too, and drops the new client when it ends.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.rivals import RivalWatch
from biren_plugin.device_plugin.folder import KUBELET_SOCKET, KubeletFolder
from biren_plugin.device_plugin.streams import Streams
from biren_plugin.errors import (
    KubeletRestarted,
    PluginSocketGone,
    RegistrationFailed,
    StreamEnded,
)
from biren_plugin.unix_sockets import FileIdentity, is_served
from biren_plugin.wire.messages import Registration
from biren_plugin.wire.registration import register

log = logging.getLogger(__name__)

REGISTER_DEADLINE: Final = 15.0
"""Seconds: above the 10 that the kubelet spends on dialling back before it answers."""
STREAM_DEADLINE: Final = 10.0
"""Seconds from the answer to the stream; older kubelets dial only then."""
_SECOND_STREAM: Final = 1.0
"""Seconds in which a kubelet that answered two Registers opens its second stream."""
LOOK_INTERVAL: Final = 1.0
"""Seconds between looks at the two sockets when no change of the folder calls for one."""
_FIRST_KNOCK: Final = 1 / 64
_LONGEST_KNOCK: Final = 1.0


async def stay_registered(
    resource: str,
    socket: Path,
    identity: FileIdentity,
    folder: Board[KubeletFolder],
    streams: Board[Streams],
    registered: Board[bool],
    rivals: RivalWatch,
    on_registered: Callable[[], None] = lambda: None,
) -> None:
    """Registers `resource` once the kubelet serves, and watches over the stream. Ends by raising.

    `identity` is that of our `socket`; `registered` and `on_registered` are told when the kubelet
    watches; `rivals` outlives this task. Raises `PluginSocketGone`, `RegistrationFailed` and
    `StreamEnded`.
    """
    await folder.wait_for(lambda seen: seen.kubelet is not None)
    stream = await _knock(socket.with_name(KUBELET_SOCKET), resource)
    if FileIdentity.of(socket) != identity:
        # A kubelet that starts deletes it first: registered now, it would be registered twice.
        await trio.aclose_forcefully(stream)
        raise PluginSocketGone(f"{socket} was deleted before it could be registered")
    asked = trio.current_time()
    before = streams.latest or Streams()
    await register(stream, Registration(socket.name, resource), REGISTER_DEADLINE)
    with trio.move_on_after(STREAM_DEADLINE) as waiting:
        await streams.wait_for(lambda seen: seen.opened > before.opened)
    if waiting.cancelled_caught:
        raise RegistrationFailed(
            f"the kubelet took the registration of {resource} and opened no stream in "
            f"{STREAM_DEADLINE:g} s; see the kubelet's log"
        )
    took = (trio.current_time() - asked) * 1000
    registered.post(True)
    on_registered()
    log.info(
        "%s: registered and watched, in %.0f ms", resource, took,
        extra={"event": "registered", "resource": resource, "milliseconds": round(took, 1)},
    )  # fmt: skip
    await _first_end(streams, before)
    text = f"the kubelet ended the stream of {resource}"
    kubelet_socket = socket.with_name(KUBELET_SOCKET)
    kubelet = FileIdentity.of(kubelet_socket)
    if await is_served(kubelet_socket) and rivals.stream_ended(trio.current_time(), kubelet):
        text += (
            f" again and again: another plugin on this node registers {resource} too, the vendor's "
            f"perhaps; see the sockets in {socket.parent}, and remove one of the two"
        )
    raise StreamEnded(text)


async def _first_end(streams: Board[Streams], before: Streams) -> None:
    """Returns when one of those that were opened since `before`, or soon from now, ends.

    Any of them: a kubelet that answered two Registers holds two streams, and drops its client with
    either; how many others are still open says nothing. Streams from `before`, and those that come
    later than `_SECOND_STREAM`, are somebody's who only looks.
    """
    settled = trio.current_time() + _SECOND_STREAM
    ours = (streams.latest or before).since(before)
    with streams.subscribe() as changes:
        async for seen in changes:
            if trio.current_time() < settled:
                ours = seen.since(before)
            if ours.one_ended or not ours.open <= seen.open:
                return


async def _knock(path: Path, resource: str) -> trio.SocketStream:
    """A connection to kubelet.sock, as soon as somebody listens: a stopped kubelet leaves the file."""
    wait = _FIRST_KNOCK
    said = False
    while True:
        try:
            return await trio.open_unix_socket(path)
        except OSError as error:
            if wait == _LONGEST_KNOCK and not said:
                said = True
                log.warning(
                    "%s: nobody serves %s (%s): waiting for the kubelet",
                    resource,
                    path,
                    error,
                    extra={"event": "kubelet_not_serving", "resource": resource},
                )
        await trio.sleep(wait)
        wait = min(wait * 2, _LONGEST_KNOCK)


async def notice_restart(
    socket: Path, identity: FileIdentity, folder: Board[KubeletFolder]
) -> None:
    """Ends by raising, when the kubelet's socket or ours (`identity`) is no longer the one it was.

    `folder` says when to look; what it holds may be older than our socket. Raises
    `KubeletRestarted` and `PluginSocketGone`.
    """
    kubelet_socket = socket.with_name(KUBELET_SOCKET)
    first = FileIdentity.of(kubelet_socket)
    with folder.subscribe() as changes:
        while True:
            kubelet = FileIdentity.of(kubelet_socket)
            first = first or kubelet
            if kubelet not in (None, first):
                raise KubeletRestarted("the kubelet has restarted")
            if (there := FileIdentity.of(socket)) != identity:
                done = (
                    "deleted" if there is None else "replaced; does another plugin use that name?"
                )
                raise PluginSocketGone(f"{socket} was {done}")
            with trio.move_on_after(LOOK_INTERVAL):
                await changes.receive()
