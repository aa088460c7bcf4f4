"""Looks at the folder where the kubelet and the plugins keep their sockets, and posts what is there."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.host_paths import NOT_THERE
from biren_plugin.unix_sockets import FileIdentity

log = logging.getLogger(__name__)

KUBELET_SOCKET: Final = "kubelet.sock"
INTERVAL: Final = 1.0
"""Seconds between looks when no event calls for one."""


@attrs.frozen
class KubeletFolder:
    """The sockets in the kubelet's folder at one moment."""

    exists: bool = False
    trouble: str = ""
    """Why it cannot be read, if it is there and cannot."""
    sockets: Mapping[str, FileIdentity] = attrs.Factory(dict)
    """By file name; `kubelet.sock` among them while there is one."""

    @property
    def kubelet(self) -> FileIdentity | None:
        """The kubelet's socket; another identity means another kubelet."""
        return self.sockets.get(KUBELET_SOCKET)


def socket_name(resource: str) -> str:
    """`birentech.com/1-2-gpu` -> `birentech.com-1-2-gpu.sock`."""
    return resource.replace("/", "-") + ".sock"


def read_kubelet_folder(path: Path) -> KubeletFolder:
    """One look, without a thread: the folder is on the node's own disk. Never raises."""
    try:
        names = [name for name in os.listdir(path) if name.endswith(".sock")]
    except OSError as error:
        return KubeletFolder(trouble="" if error.errno in NOT_THERE else str(error.strerror))
    found = {name: FileIdentity.of(path / name) for name in names}
    return KubeletFolder(
        exists=True, sockets={name: each for name, each in found.items() if each is not None}
    )


async def watch_kubelet_folder(
    path: Path,
    folder_events: FolderEvents,
    board: Board[KubeletFolder],
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Posts the folder at first and whenever it changed; says once what it waits for.

    `on_turn` gets the seconds that each look took.
    """
    while True:
        folder_events.arm()
        began = trio.current_time()
        current = read_kubelet_folder(path)
        before = board.latest
        if current != before:
            if current.trouble and (before is None or before.trouble != current.trouble):
                log.warning(
                    "cannot read %s (%s): waiting until it can be read",
                    path,
                    current.trouble,
                    extra={"event": "folder_unreadable", "reason": current.trouble},
                )
            elif not current.exists and (before is None or before.exists):
                log.warning(
                    "no folder %s: waiting for it; is the kubelet's folder mounted into the container?",
                    path,
                    extra={"event": "folder_missing"},
                )
            elif (
                current.exists
                and current.kubelet is None
                and (before is None or not before.exists or before.kubelet is not None)
            ):
                log.warning(
                    "no %s in %s: waiting for the kubelet", KUBELET_SOCKET, path,
                    extra={"event": "kubelet_missing"},
                )  # fmt: skip
            board.post(current)
        on_turn(trio.current_time() - began)
        await folder_events.wait(INTERVAL)
