"""Notices that a registration has ended: a restarted kubelet, a missing socket, or a rival plugin.

While another plugin has the resource, that plugin is logged once, and the resource does not count as
registered. When that plugin has gone, the subtree ends, and its next life registers.
"""

from functools import partial
from typing import Final

import trio

from biren_plugin.board import Board, news_of
from biren_plugin.core.rivals import Lost, RegistrationJudge, Rival, Seen, Sent
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder
from biren_plugin.device_plugin.node import Node, OwnSocket, ResourceMemory
from biren_plugin.errors import KubeletRestarted, PluginSocketGone, RegistrationLost
from biren_plugin.notice import ERROR, say
from biren_plugin.shared_wakeups import until_wakeup
from biren_plugin.unix_sockets import FileIdentity, is_served


async def watch_kubelet(socket: OwnSocket, node: Node) -> None:
    """Raise when the kubelet's socket or the plugin's own is missing or another one.

    Each read of `node.folder` is the time for one here; its content may be older than the plugin's socket. Raises
    `KubeletRestarted` and `PluginSocketGone`.
    """
    first: FileIdentity | None = None
    with node.folder.subscribe() as changes:
        while True:
            unchanged = first, socket.identity
            if _shown_both(socket, node) == unchanged:  # as nearly always: no thread is needed
                await changes.receive()
                continue
            # While the disk hangs or fails, both count as unchanged.
            read = partial(_read_both, socket, node, first)
            kubelet, there = await node.thread.run_or(read, unchanged)
            first = first or kubelet
            if kubelet not in (None, first):
                raise KubeletRestarted("the kubelet has restarted")
            if there is kubelet is None:
                raise KubeletRestarted("the kubelet is restarting: it has emptied its directory")
            if there != socket.identity:
                done = (
                    "deleted" if there is None else "replaced; does another plugin use that name?"
                )
                raise PluginSocketGone(f"{socket.path} was {done}")
            await changes.receive()


def _shown_both(socket: OwnSocket, node: Node) -> tuple[FileIdentity | None, FileIdentity | None]:
    """Return the same as `_read_both` by the last read of `node.folder`."""
    folder = node.folder.latest or KubeletFolder()
    return folder.kubelet, folder.sockets.get(socket.path.name)


def _read_both(
    socket: OwnSocket, node: Node, kubelet: FileIdentity | None
) -> tuple[FileIdentity | None, FileIdentity | None]:
    """Return the identities of the kubelet's socket, which was `kubelet` before, and the plugin's own. Blocks."""
    there = FileIdentity.of(socket.path, socket.identity)
    return FileIdentity.of(node.kubelet_socket, kubelet), there


TRY_INTERVAL: Final = 1.0
"""Seconds between tries of a rival's socket."""
DOUBT: Final = 15.0
"""Seconds in which the kubelet is asked often: after a registration, and after sockets changed. A
plugin registers soon after it has created its socket."""


async def watch_rivals(
    resource: str, node: Node, memory: ResourceMemory, sent: Board[Sent]
) -> None:
    """Post False to `memory.registered` while there is a rival; ends by raising `RegistrationLost`."""
    state = node.state
    await memory.registered.wait_for(bool)
    judge = RegistrationJudge(resource, memory.rivals, trio.current_time())
    foreign: object = None
    rival: Rival | None = None
    try:
        with news_of(node.folder, state.kubelet_view, sent) as news:
            while True:
                if rival is not None or foreign != node.foreign_sockets:
                    foreign = node.foreign_sockets
                    state.doubt_for(DOUBT)
                seen = Seen(
                    node.foreign_sockets,
                    sent.latest,
                    state.kubelet_view.latest,
                    await _unserved(rival, node),
                )
                verdict = judge.judge(seen, trio.current_time())
                if isinstance(verdict, Lost):
                    raise RegistrationLost(f"the registration does not count: {verdict.why}")
                if verdict is None and rival is not None:
                    rival = None
                    del state.rivals[resource]
                    memory.registered.post(True)
                    say(
                        "rival_cleared",
                        f"{resource}: the kubelet shows that no other plugin has taken it",
                        resource=resource,
                    )
                elif verdict is not None and verdict != rival:
                    rival = verdict
                    memory.registered.post(False)
                    state.rivals[resource] = rival
                    text = rival.describe(resource)
                    say("rival", text, ERROR, resource=resource, sockets=rival.sockets)
                if judge.is_doubtful:
                    state.doubt_for(DOUBT)
                with trio.move_on_after(until_wakeup(TRY_INTERVAL if rival is not None else DOUBT)):
                    await news.receive()
    finally:
        if rival is not None:
            del state.rivals[resource]


async def _unserved(rival: Rival | None, node: Node) -> list[str]:
    names = rival.sockets if rival is not None else ()
    return [name for name in names if not await is_served(node.path / name, node.thread)]
