"""What the kubelet, and a process that cleans up its directory, do to a daemon."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.soak.daemon_trouble import DaemonTrouble
from tests.support.simulated_node import Node

_LONGEST_STOP = 3.0
"""Seconds: less than the deadlines of the commands that a stopped kubelet would not obey."""


class KubeletTrouble:
    """The kubelet's restarts, its stops, its calls and its directory."""

    def __init__(self, node: Node, daemon: DaemonTrouble, chance: random.Random) -> None:
        """`daemon.answers` is whether calls would be answered."""
        self._node = node
        self._daemon = daemon
        self._chance = chance
        self.kinds: Sequence[Callable[[], None]] = (
            self.kubelet_restarts,
            self.kubelet_is_killed_and_comes_back_later,
            self.kubelet_is_stopped_for_a_while,
            self.kubelet_refuses_a_register,
            self.stream_is_reset,
            self.pod_comes_and_goes,
            self.allocation_is_refused,
            self.socket_is_deleted,
            self.folder_is_made_anew,
            self.folder_is_moved_away,
        )

    def kubelet_restarts(self) -> None:
        """It stops, and a new one wipes the sockets."""
        self._node.kubelet.restart()

    def kubelet_is_killed_and_comes_back_later(self) -> None:
        """The socket file stays, and no process listens on it."""
        self._node.kubelet.kill()
        time.sleep(self._chance.uniform(0, _LONGEST_STOP))  # real processes notice in real time
        self._node.kubelet.start()

    def kubelet_is_stopped_for_a_while(self) -> None:
        """SIGSTOP and SIGCONT: connections stay open and nothing moves."""
        self._node.kubelet.signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0, _LONGEST_STOP))  # a stopped process sends no event
        self._node.kubelet.signal(signal.SIGCONT)

    def kubelet_refuses_a_register(self) -> None:
        """The next Register fails; the end of a stream causes one."""
        self._node.kubelet.command("refuse_next_register", text="not now")
        self.stream_is_reset()

    def stream_is_reset(self) -> None:
        """The kubelet cancels its call and keeps everything else."""
        self._node.kubelet.command("end_stream", resource=self._resource())

    def pod_comes_and_goes(self) -> None:
        """A pod is admitted, if there is room, and ends."""
        resource = self._resource()
        if self._daemon.answers:
            answer = self._node.kubelet.admit(resource, 1)
            if answer["ok"]:
                self._node.kubelet.command("free", resource=resource, ids=answer["ids"])

    def allocation_is_refused(self) -> None:
        """A caller asks for a card that does not exist."""
        resource = self._resource()
        if self._daemon.answers:
            self._node.kubelet.allocate(resource, ["card_999"])

    def socket_is_deleted(self) -> None:
        """A process cleans up the kubelet's directory."""
        socket = self._node.plugins / f"{self._resource().replace('/', '-')}.sock"
        socket.unlink(missing_ok=True)

    def folder_is_made_anew(self) -> None:
        """The directory is deleted with its content, and the kubelet starts in a new one."""
        self._replace_folder(shutil.rmtree)

    def folder_is_moved_away(self) -> None:
        """As `folder_is_made_anew`, but the old directory still exists under another name."""
        self._replace_folder(lambda _folder: None)

    def rest(self) -> None:
        """Nothing: each trouble ends by itself."""

    def calm(self) -> None:
        """Nothing, likewise."""

    def _replace_folder(self, remove: Callable[[Path], None]) -> None:
        plugins = self._node.plugins
        old = plugins.with_name(f"plugins-{time.monotonic_ns()}")
        plugins.rename(old)  # at once: what is deleted file by file, the daemon fills meanwhile
        remove(old)
        time.sleep(self._chance.choice((0, 1.5)))  # with and without the daemon seeing it gone
        self._node.kubelet.restart()
        shutil.rmtree(old, ignore_errors=True)

    def _resource(self) -> str:
        return self._chance.choice(sorted(self._node.expected))
