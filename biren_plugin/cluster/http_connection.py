"""One HTTP/1.1 connection to the API server: h11 over trio's TLS.

1. Everything received is bounded: a head by h11, a body by `BODY_SIZE`, a line by `LINE_SIZE`.
2. A connection that was cancelled in the middle of an exchange is closed and not used again.
3. Callers set the deadlines.
"""

import os
import socket
import ssl
from typing import Final

import h11
import trio

from biren_plugin import __version__
from biren_plugin.cluster.credentials import Access
from biren_plugin.errors import ApiUnreachable, NoThread
from biren_plugin.records import frozen
from biren_plugin.worker_thread import starting_thread

BODY_SIZE: Final = 16 * 1024 * 1024
"""Bytes of one answer; a list of one node's slices has a few hundred KiB."""
LINE_SIZE: Final = 2 * 1024 * 1024
"""Bytes of one watch event; the API server's store takes objects of 1.5 MiB."""
_PIECE: Final = 64 * 1024
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch only receives: without these, a server whose machine has gone is noticed after minutes, not one."""

BROKEN: Final = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    h11.RemoteProtocolError,
    h11.LocalProtocolError,
)
"""The errors of an exchange when the other side goes away."""


@frozen
class Head:
    """The beginning of an answer."""

    status: int
    retry_after: float | None = None
    """Seconds that the server asks to wait."""


class HttpConnection:
    """Takes responsibility for closing `stream`; `close` does it."""

    def __init__(self, stream: trio.abc.Stream, access: Access) -> None:
        self._stream = stream
        self._access = access
        self._http = h11.Connection(h11.CLIENT)

    @property
    def access(self) -> Access:
        """Return the access that the connection was opened with."""
        return self._access

    @property
    def is_idle(self) -> bool:
        """Return whether a further request may be sent."""
        return self._http.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}

    async def request(self, method: str, target: str, body: bytes | None) -> Head:
        """Send a request, and return the head of its answer. Raises `BROKEN`."""
        host = self._access.host
        headers = [
            ("host", f"[{host}]" if ":" in host else host),
            ("user-agent", f"br-gpu-device-plugin/{__version__}"),
            ("accept", "application/json"),
        ]
        if self._access.token is not None:
            headers.append(("authorization", f"Bearer {self._access.token}"))
        if body is not None:
            headers += [("content-type", _type_of(method)), ("content-length", str(len(body)))]
        pieces = [self._http.send(h11.Request(method=method, target=target, headers=headers))]
        if body is not None:
            pieces.append(self._http.send(h11.Data(data=body)))
        pieces.append(self._http.send(h11.EndOfMessage()))
        await self._stream.send_all(b"".join(piece for piece in pieces if piece))
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return Head(event.status_code, _retry_after(event))
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the answer ended before it began")

    async def body(self) -> bytes:
        """Return the whole body. Raises `BROKEN`, and `ApiUnreachable` for a body that is too large."""
        pieces: list[bytes] = []
        size = 0
        while isinstance(event := await self._next_event(), h11.Data):
            size += len(event.data)
            if size > BODY_SIZE:
                raise ApiUnreachable(f"the API server's answer is larger than {BODY_SIZE} bytes")
            pieces.append(bytes(event.data))
        if self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._http.start_next_cycle()
        return b"".join(pieces)

    async def line(self, rest: bytearray) -> bytes | None:
        """Return the next line of a streamed body; None at its end.

        `rest` has the bytes received after the last line; the caller keeps it between calls.
        Raises `BROKEN`, and `ApiUnreachable` for a line that is too long.
        """
        searched = 0
        while (end := rest.find(b"\n", searched)) < 0:
            searched = len(rest)
            if searched > LINE_SIZE:
                raise ApiUnreachable(f"a watch event is larger than {LINE_SIZE} bytes")
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                return None  # an incomplete last line is dropped
            rest += event.data
        line = bytes(rest[:end])
        del rest[: end + 1]
        return line

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(_PIECE)))
        return event

    async def close(self) -> None:
        """Close at once, without the closing handshake of TLS."""
        await trio.aclose_forcefully(self._stream)


async def connect(access: Access) -> HttpConnection:
    """Return a new connection. Raises `ApiUnreachable`."""
    where = f"{access.host}:{access.port}"
    try:
        with starting_thread():
            tcp = await trio.open_tcp_stream(access.host, access.port)
        for level, option, value in _KEEP_ALIVE:
            tcp.setsockopt(level, option, value)
    except NoThread as error:  # for a host's name; an address needs none
        raise ApiUnreachable(
            f"cannot look up the API server's name {access.host}: {error}"
        ) from error
    except (OSError, UnicodeError) as error:
        raise ApiUnreachable(
            f"cannot connect to the API server at {where}: {_first_cause(error)}"
        ) from error
    tls = trio.SSLStream(tcp, access.tls, server_hostname=access.host, https_compatible=True)
    done = False
    try:
        await tls.do_handshake()
        done = True
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        reason = cause.reason if isinstance(cause, ssl.SSLError) else "the connection broke"
        raise ApiUnreachable(f"no TLS with the API server at {where}: {reason}") from error
    finally:
        if (
            not done
        ):  # after a cancelled handshake too: the socket must not wait for the garbage collector
            await trio.aclose_forcefully(tcp)
    return HttpConnection(tls, access)


def _first_cause(error: OSError | UnicodeError) -> str:
    """Return why the connection failed: trio words the reasons of its attempts around the address."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _type_of(method: str) -> str:
    return "application/merge-patch+json" if method == "PATCH" else "application/json"


def _retry_after(response: h11.Response) -> float | None:
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit():
            return float(value)
    return None
