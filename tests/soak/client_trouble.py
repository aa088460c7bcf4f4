"""What hostile clients do to a daemon."""

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.hostile import frames
from tests.support.simulated_node import Node

_METHOD = "/v1beta1.DevicePlugin/ListAndWatch"


class ClientTrouble:
    """Frames by hand on the daemon's sockets. Slow readers stay open until `calm`."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self._node = node
        self._chance = chance
        self._open: list[socket.socket] = []
        self.kinds: Sequence[Callable[[], None]] = (
            self.garbage_arrives,
            self.calls_are_reset_rapidly,
            self.reader_is_slow,
        )

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
        """A client opens a stream and does not read from it until `calm`."""
        writer = frames.HeaderWriter()
        opening = writer.request(1, _METHOD) + frames.data(1, frames.message(b""), end=True)
        self._connect_and_send(frames.PREFACE + frames.settings() + opening, stay=True)

    def rest(self) -> None:
        """Do nothing: the kubelet's view must not depend on other clients."""

    def calm(self) -> None:
        """The slow client leaves."""
        while self._open:
            self._open.pop().close()

    def _connect_and_send(self, data: bytes, *, stay: bool = False) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(1)
        with contextlib.suppress(OSError):  # the daemon may be between two lives, or refuse us
            client.connect(str(self._socket()))
            client.sendall(data)
        if stay:
            self._open.append(client)
        else:
            client.close()

    def _socket(self) -> Path:
        resource = self._chance.choice(sorted(self._node.expected))
        return self._node.plugins / f"{resource.replace('/', '-')}.sock"
