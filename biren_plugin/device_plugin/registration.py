"""Registers with the kubelet, and stays registered.

A registration only counts while the kubelet holds a `ListAndWatch` stream open. When the stream ends, the
subtree ends too, so that the next life starts with a fresh socket and no old stream: kubelet 1.36 also
accepts lists from an old stream, and drops the new client when that stream ends.
"""

import socket as sockets
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import trio

from biren_plugin.board import Board
from biren_plugin.device_plugin.node import Node, OwnSocket, ResourceMemory, Streams
from biren_plugin.errors import (
    KubeletRestarted,
    PluginSocketGone,
    RegistrationFailed,
    StreamEnded,
    reason_of,
)
from biren_plugin.notice import say
from biren_plugin.unix_sockets import FileIdentity, connect_at_once, is_served, stream_of
from biren_plugin.wire.device_plugin import register
from biren_plugin.wire.messages import Registration

REGISTER_DEADLINE: Final = 15.0
"""Seconds, more than the 10 that the kubelet spends on dialling back before it answers."""
STREAM_DEADLINE: Final = 10.0
"""Seconds from the answer to the stream; older kubelets dial only then."""
SECOND_STREAM: Final = 1.0
"""Seconds in which a kubelet that answered two Registers opens its second stream."""
_LAST_BREATH: Final = 0.02
"""Seconds: a kubelet that is killed may close its streams before it closes its socket."""
_FIRST_WAIT: Final = 1 / 64
_LONGEST_WAIT: Final = 1.0


async def stay_registered(
    resource: str, socket: OwnSocket, node: Node, memory: ResourceMemory, streams: Board[Streams]
) -> None:
    """Register `resource` once the kubelet serves, and watch the stream. Ends by raising.

    Posts to `memory.registered` when the kubelet watches. Raises `KubeletRestarted`, `PluginSocketGone`,
    `RegistrationFailed`, `StreamEnded` and `NoThread`.
    """
    first = await node.thread.run(partial(FileIdentity.of, node.kubelet_socket))
    await node.folder.wait_for(lambda seen: seen.kubelet is not None)
    dialled = await _dial(node, socket.path)
    stream, kubelet = stream_of(dialled.connection), dialled.kubelet
    if dialled.own != socket.identity:
        # A starting kubelet deletes the socket first: registering now would register it twice.
        await trio.aclose_forcefully(stream)
        if kubelet != first:
            raise KubeletRestarted("the kubelet has restarted")
        raise PluginSocketGone(f"{socket.path} was deleted before it could be registered")
    asked = trio.current_time()
    before = streams.latest or Streams()
    memory.rivals.registering(node.foreign_sockets)
    node.state.holding.registering(resource, kubelet, asked)
    await register(stream, Registration(socket.path.name, resource), REGISTER_DEADLINE)
    with trio.move_on_after(STREAM_DEADLINE) as waiting:
        await streams.wait_for(lambda seen: seen.opened > before.opened)
    if waiting.cancelled_caught:
        raise RegistrationFailed(
            f"the kubelet accepted the registration of {resource} and opened no stream in "
            f"{STREAM_DEADLINE:g} s; see the kubelet's log"
        )
    took = (trio.current_time() - asked) * 1000
    memory.registered.post(True)
    node.state.counters.registered(resource)
    text = f"{resource}: registered and watched, in {took:.0f} ms"
    say("registered", text, resource=resource, milliseconds=round(took, 1))
    await _first_end(streams, before)
    await trio.sleep(_LAST_BREATH)
    find = partial(FileIdentity.of, node.kubelet_socket)
    if not await is_served(node.kubelet_socket, node.thread) or kubelet != (
        await node.thread.run_or(find, otherwise=kubelet)
    ):
        raise KubeletRestarted("the kubelet has stopped")
    text = f"the kubelet ended the stream of {resource}"
    if memory.rivals.stream_ended(trio.current_time(), kubelet):
        text += (
            f" again and again: another plugin on this node registers {resource} too, the vendor's "
            f"perhaps; see the sockets in {node.path}, and remove one of the two"
        )
    raise StreamEnded(text)


async def _first_end(streams: Board[Streams], before: Streams) -> None:
    """Return when one of the streams opened since `before`, or opened soon from now, ends.

    Any of them counts: a kubelet that answered two Registers holds two streams, and drops its client when
    either ends. Streams from `before`, and streams opened later than `SECOND_STREAM`, belong to
    observers.
    """
    settled = trio.current_time() + SECOND_STREAM
    ours = Streams()
    with streams.subscribe() as changes:
        async for seen in changes:
            if trio.current_time() < settled:
                ours = seen.since(before)
            if ours.one_ended or not ours.open <= seen.open:
                return


class _Dialled(NamedTuple):
    """A connection to the kubelet, and what was there right after it was made."""

    connection: sockets.socket
    kubelet: FileIdentity | None
    own: FileIdentity | None

    @classmethod
    def at(cls, kubelet: Path, own: Path) -> "_Dialled":
        """Connect. Blocks. Raises `OSError`."""
        return cls(connect_at_once(kubelet), FileIdentity.of(kubelet), FileIdentity.of(own))

    def hang_up(self) -> None:
        """Close the connection."""
        self.connection.close()


async def _dial(node: Node, own: Path) -> _Dialled:
    """Connect to kubelet.sock once a process listens: a stopped kubelet leaves the file."""
    wait = _FIRST_WAIT
    while True:
        try:
            dialled = await node.thread.acquire(
                partial(_Dialled.at, node.kubelet_socket, own), _Dialled.hang_up
            )
        except OSError as error:
            if wait == _LONGEST_WAIT:
                text = f"waiting for the kubelet: {node.kubelet_socket}: {reason_of(error)}"
                node.kubelet_notice.begin("kubelet_not_serving", text)
        else:
            node.kubelet_notice.forget()  # kubelet_restarted is the end of it: the socket is a new one
            return dialled
        await trio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)
