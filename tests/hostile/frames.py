"""HTTP/2 frames by hand. purerpc patches h2 where it is imported, so h2 may not judge itself here."""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from hpack import Encoder

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9

END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
NO_ERROR, PROTOCOL_ERROR, CANCEL = 0, 1, 8

Header = tuple[str, str | bytes]


def frame(kind: int, flags: int = 0, stream_id: int = 0, body: bytes = b"") -> bytes:
    """Any frame, right or wrong."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream_id) + body


def settings(values: Mapping[int, int] | None = None, flags: int = 0) -> bytes:
    body = b"".join(struct.pack(">HI", key, value) for key, value in (values or {}).items())
    return frame(SETTINGS, flags, 0, body)


def data(stream_id: int, body: bytes = b"", *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, body)


def reset(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def ping(body: bytes = b"12345678") -> bytes:
    return frame(PING, 0, 0, body)


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def goaway(last_stream_id: int = 0, code: int = NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, code))


def message(body: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix; `length` where the prefix shall lie."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


class HeaderWriter:
    """Writes header lists. HPACK has a state for each connection, and so has this."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def block(self, headers: Sequence[Header]) -> bytes:
        """An encoded list, for frames that are cut by hand."""
        encoded: bytes = self._encoder.encode(headers)
        return encoded

    def headers(self, stream_id: int, headers: Sequence[Header], *, end: bool = False) -> bytes:
        """One HEADERS frame."""
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(HEADERS, flags, stream_id, self.block(headers))

    def request(
        self, stream_id: int, method: str = "Echo", *extra: Header, end: bool = False
    ) -> bytes:
        """The opening of a call to the tests' service, or to any path; `extra` replaces or adds."""
        path = method if method.startswith("/") else f"/test.Service/{method}"
        given: dict[str, str | bytes] = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        replaced = {name for name, _ in extra}
        kept = [(name, value) for name, value in given.items() if name not in replaced]
        return self.headers(stream_id, [*kept, *extra], end=end)

    def call(self, stream_id: int, method: str, body: bytes = b"", *extra: Header) -> bytes:
        """A whole unary request."""
        opening = self.request(stream_id, method, *extra)
        return opening + data(stream_id, message(body), end=True)
