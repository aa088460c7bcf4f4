"""Notices a restarted kubelet, and a missing socket of this plugin."""

from typing import Final

import trio

from biren_plugin.device_plugin.node import Node, OwnSocket
from biren_plugin.errors import KubeletRestarted, PluginSocketGone
from biren_plugin.unix_sockets import FileIdentity

READ_INTERVAL: Final = 1.0
"""Seconds between reads of the two sockets when no change of the directory calls for one."""


async def watch_kubelet(socket: OwnSocket, node: Node) -> None:
    """Raise when the kubelet's socket or the plugin's own is missing or another one.

    `node.folder` shows when to read; its content may be older than the plugin's socket. Raises
    `KubeletRestarted` and `PluginSocketGone`.
    """
    first = FileIdentity.of(node.kubelet_socket)
    with node.folder.subscribe() as changes:
        while True:
            kubelet = FileIdentity.of(node.kubelet_socket)
            first = first or kubelet
            if kubelet not in (None, first):
                raise KubeletRestarted("the kubelet has restarted")
            there = FileIdentity.of(socket.path)
            if there is kubelet is None:
                raise KubeletRestarted("the kubelet is restarting: it has emptied its directory")
            if there != socket.identity:
                done = (
                    "deleted" if there is None else "replaced; does another plugin use that name?"
                )
                raise PluginSocketGone(f"{socket.path} was {done}")
            with trio.move_on_after(READ_INTERVAL):
                await changes.receive()
