"""/metrics, /healthz and /readyz: HTTP/1.1 by h11 over trio, one request per connection.

1. No client can slow the daemon: one connection is accepted every `PACE` at most, a connection has
   `DEADLINE` until its answer is sent, a request's head has at most `HEAD_SIZE`, no body is read, and
   metrics are rebuilt at most once in `FRESH`.
2. When all `CONNECTIONS` are taken, the oldest is closed to make room. An honest client is served in
   milliseconds, so the oldest is slow or hostile, and the kubelet's probe gets through.
3. GET and HEAD only. Anything that is not HTTP is answered with 400, or closed.
"""

from collections.abc import Callable
from typing import Final

import h11
import trio

from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import AddressUnusable, printable, reason_of
from biren_plugin.monitor.metrics import CONTENT_TYPE, Metrics
from biren_plugin.notice import say, say_bug
from biren_plugin.records import frozen
from biren_plugin.worker_thread import starting_thread

CONNECTIONS: Final = 32
DEADLINE: Final = 5.0
PACE: Final = 0.005
FRESH: Final = 1.0
LOOK_UP_DEADLINE: Final = 10.0
"""Seconds."""
HEAD_SIZE: Final = 8 * 1024
"""Bytes, of the request line and all headers."""
_PIECE: Final = 4096
_DRAINED: Final = 16
"""Pieces that are read and discarded."""
_TEXT: Final = "text/plain; charset=utf-8"


@frozen
class Answer:
    """An answer's status and body."""

    status: int
    body: bytes
    content_type: str = _TEXT


class Endpoint:
    """Answers from `state`."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._metrics = Metrics(state)
        self._made: tuple[float, bytes] | None = None
        self._open: dict[trio.CancelScope, None] = {}
        """The connections, the oldest first."""
        self._pages: dict[str, Callable[[], Answer]] = {
            "/metrics": self._show_metrics,
            "/healthz": lambda: _verdict(state.stuck(), "live"),
            "/readyz": lambda: _verdict(state.unready(), "ready"),
        }

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Handle one connection, from accept to close. Closes `stream`."""
        if len(self._open) >= CONNECTIONS:
            first = next(iter(self._open))
            del self._open[first]
            first.cancel()
        with trio.move_on_after(DEADLINE) as scope:
            self._open[scope] = None
            try:
                await self._serve(stream)
            except trio.BrokenResourceError:
                pass  # the client has left
            finally:
                self._open.pop(scope, None)
                await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_SIZE)
        try:
            request = await _receive(http, stream)
        except h11.RemoteProtocolError as error:
            answer, head_only = Answer(error.error_status_hint, b"not an HTTP request\n"), False
        else:
            if request is None:
                return
            answer = self._answer(request)
            head_only = request.method == b"HEAD"
        headers = [
            ("content-type", answer.content_type),
            ("content-length", str(len(answer.body))),
            ("connection", "close"),
        ]
        if answer.status == 405:
            headers.append(("allow", "GET, HEAD"))
        pieces = [http.send(h11.Response(status_code=answer.status, headers=headers))]
        if not head_only:
            pieces.append(http.send(h11.Data(data=answer.body)))
        pieces.append(http.send(h11.EndOfMessage()))
        await stream.send_all(b"".join(piece for piece in pieces if piece))
        await stream.send_eof()
        for _ in range(_DRAINED):  # closing over unread bytes resets, and the answer may be lost
            if not await stream.receive_some(_PIECE):
                break

    def _answer(self, request: h11.Request) -> Answer:
        page = self._pages.get(request.target.partition(b"?")[0].decode("latin-1"))
        if page is None:
            return Answer(404, f"there are {', '.join(self._pages)}\n".encode())
        if request.method not in (b"GET", b"HEAD"):
            return Answer(405, b"GET or HEAD\n")
        try:
            return page()
        except Exception as error:  # noqa: BLE001 - a bug here must not end the daemon
            say_bug("a page failed on a bug of the plugin", error, "metrics")
            return Answer(500, b"a bug of the plugin; its log has the details\n")

    def _show_metrics(self) -> Answer:
        now = trio.current_time()
        if self._made is None or now - self._made[0] >= FRESH:
            self._made = now, self._metrics.text()
        return Answer(200, self._made[1], CONTENT_TYPE)


async def _receive(http: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """Return the request's head; None if the client left before it was complete."""
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await stream.receive_some(_PIECE)
        http.receive_data(bytes(data))
    return event if isinstance(event, h11.Request) else None


def _verdict(sentences: list[str], well: str) -> Answer:
    if not sentences:
        return Answer(200, f"{well}\n".encode())
    return Answer(503, "".join(f"{printable(each)}\n" for each in sentences).encode())


class _Paced(trio.abc.Listener[trio.SocketStream]):
    """Accepts one connection every `PACE` at most; others wait in the kernel."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener

    async def accept(self) -> trio.SocketStream:
        await trio.sleep(PACE)
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


async def serve_endpoint(
    host: str,
    port: int,
    state: DaemonState,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; an empty `host` means all addresses. Started, with the port, once listening.

    Raises `AddressUnusable` and `NoThread`.
    """
    endpoint = Endpoint(state)
    try:
        with trio.fail_after(LOOK_UP_DEADLINE), starting_thread():
            listeners = await trio.open_tcp_listeners(port, host=host or None)
    except trio.TooSlowError:
        raise AddressUnusable(
            f"looking up {host} for metrics and probes takes more than {LOOK_UP_DEADLINE:g} s; "
            "give an address in --metrics-address"
        ) from None
    # socket.gaierror is an OSError; a name that no DNS can have (`a..b`) is a UnicodeError.
    except (OSError, UnicodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise AddressUnusable(
            f"cannot listen on {host or '*'}:{port} for metrics and probes: {reason}; "
            "see --metrics-address"
        ) from error
    shown = listeners[0].socket.getsockname()[1]
    say("metrics_served", f"metrics and probes on {host or '*'}:{shown}", host=host, port=shown)
    task_status.started(shown)
    await trio.serve_listeners(endpoint.handle, [_Paced(each) for each in listeners])
