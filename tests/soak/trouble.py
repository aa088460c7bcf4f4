"""What can happen to a daemon, one method for each kind; chosen by a seeded random."""

import contextlib
import random
import socket
from collections.abc import Callable
from pathlib import Path

from tests.hostile import frames
from tests.simulated_node import Node

_METHOD = "/v1beta1.DevicePlugin/ListAndWatch"


class Trouble:
    """Does things to a node. Slow readers stay open until `calm`."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self._node = node
        self._chance = chance
        self._open: list[socket.socket] = []
        self._pulled: set[str] = set()
        self.kinds: list[Callable[[], None]] = [
            self.kubelet_restarts,
            self.stream_is_reset,
            self.card_is_pulled,
            self.card_is_put_back,
            self.pod_comes_and_goes,
            self.allocation_is_refused,
            self.garbage_arrives,
            self.calls_are_reset_rapidly,
            self.reader_is_slow,
            self.socket_is_deleted,
        ]

    def kubelet_restarts(self) -> None:
        """It stops, and a new one wipes the sockets."""
        self._node.kubelet.restart()

    def stream_is_reset(self) -> None:
        """The kubelet cancels its call and keeps everything else."""
        self._node.kubelet.command("end_stream", resource=self._resource())

    def card_is_pulled(self) -> None:
        """A device node vanishes."""
        card = f"card_{self._chance.randrange(8)}"
        self._node.host.pull_node(card)
        self._pulled.add(card)

    def card_is_put_back(self) -> None:
        """A pulled node is there again."""
        if self._pulled:
            self._node.host.put_node_back(self._pulled.pop())

    def pod_comes_and_goes(self) -> None:
        """A pod is admitted, if there is room, and ends."""
        resource = self._resource()
        answer = self._node.kubelet.admit(resource, 1)
        if answer["ok"]:
            self._node.kubelet.command("free", resource=resource, ids=answer["ids"])

    def allocation_is_refused(self) -> None:
        """Somebody asks for what is not there."""
        self._node.kubelet.allocate(self._resource(), ["card_999"])

    def garbage_arrives(self) -> None:
        """A client that speaks no HTTP/2."""
        self._connect_and_send(self._chance.randbytes(self._chance.randrange(1, 5000)))

    def calls_are_reset_rapidly(self) -> None:
        """A hundred calls, each reset at once."""
        writer = frames.HeaderWriter()
        pieces = [frames.PREFACE, frames.settings()]
        for stream_id in range(1, 200, 2):
            pieces += [writer.request(stream_id, _METHOD), frames.reset(stream_id)]
        self._connect_and_send(b"".join(pieces))

    def reader_is_slow(self) -> None:
        """A client opens a stream and reads nothing of it, until `calm`."""
        writer = frames.HeaderWriter()
        opening = writer.request(1, _METHOD) + frames.data(1, frames.message(b""), end=True)
        self._connect_and_send(frames.PREFACE + frames.settings() + opening, stay=True)

    def socket_is_deleted(self) -> None:
        """Somebody tidies the kubelet's folder."""
        self._socket().unlink(missing_ok=True)

    def calm(self) -> None:
        """Whoever was slow leaves, what was pulled is put back."""
        while self._open:
            self._open.pop().close()
        while self._pulled:
            self.card_is_put_back()

    def _resource(self) -> str:
        return self._chance.choice(sorted(self._node.expected))

    def _socket(self) -> Path:
        return self._node.plugins / f"{self._resource().replace('/', '-')}.sock"

    def _connect_and_send(self, data: bytes, *, stay: bool = False) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        with contextlib.suppress(OSError):  # the daemon may be between two lives, or refuse us
            client.connect(str(self._socket()))
            client.sendall(data)
        if stay:
            self._open.append(client)
        else:
            client.close()
