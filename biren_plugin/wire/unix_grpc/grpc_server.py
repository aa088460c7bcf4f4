"""The server's side: takes connections, calls purerpc's generated servicers, answers with statuses.

Each connection has a nursery, each call a task in it. A call's task ends with its handler; the
handler ends when the peer resets the call, leaves, or lets the deadline pass.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError
from purerpc import (
    Cardinality,
    ProtocolError,
    RpcFailedError,
    Service,
    Servicer,
    Status,
    StatusCode,
)
from purerpc.grpclib.exceptions import MessageTooLargeError

from biren_plugin.last_calls import LastCalls
from biren_plugin.notice import Notice, say_bug
from biren_plugin.wire.unix_grpc.call import Call
from biren_plugin.wire.unix_grpc.connection import Connection
from biren_plugin.wire.unix_grpc.headers import (
    RESPONSE,
    Header,
    Refusal,
    RequestHeaders,
    read_request,
    write_refusal,
    write_trailers,
)
from biren_plugin.wire.unix_grpc.limits import Limits

_ECHO = 200  # characters of the peer's own text that are sent back
_OPAQUE = "internal error of the device plugin; its log has the details"
_BUGS: Final = 5
"""This many bugs of calls end a server whose `on_bug` is a `bug_limit`."""


class Server:
    """Servicers behind one socket.

    `on_bug` is called with each exception that a servicer should not have raised, after the call was
    answered with INTERNAL. An exception from `on_bug` ends the server.
    """

    def __init__(
        self, servicers: Iterable[Servicer], limits: Limits, on_bug: Callable[[Exception], None]
    ) -> None:
        services: list[Service] = [servicer.service for servicer in servicers]
        self._services = {service.name: service for service in services}
        self._limits = limits
        self._on_bug = on_bug
        self._connections: set[Connection] = set()
        self._full = Notice()
        self._answering = LastCalls()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Handle one connection, from accept to close. Closes `stream`."""
        if (count := len(self._connections)) >= self._limits.connections:
            text = f"{count} connections are open: closing further ones"
            self._full.begin("connections_full", text, connections=count)
            await trio.aclose_forcefully(stream)
            return
        connection = Connection(stream, self._limits, on_request=self._run_call)
        self._connections.add(connection)
        self._full.end("connections_free", "connections are accepted again")
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)

    async def serve(
        self,
        listener: trio.abc.Listener[Any],
        goodbye: float,
        released: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Serve on `listener` until cancelled, and close it.

        Then it continues, for at most `goodbye` seconds, until `released` has returned and the calls under way are
        answered. Raises what `on_bug` raises.
        """
        serving = trio.CancelScope(shield=True)

        async def take_connections() -> None:
            with serving:
                await trio.serve_listeners(self.handle, [listener])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_connections)
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(goodbye, shield=True):
                    await released()
                    await self.idle()
                serving.cancel()

    async def idle(self) -> None:
        """Return when no call awaits its single answer, and all answers are written; streams do not count."""
        await self._answering.ended()
        for connection in list(self._connections):
            await connection.drained()

    async def _run_call(self, connection: Connection, call: Call, headers: list[Header]) -> None:
        request = read_request(headers)
        if isinstance(request, Refusal):
            connection.send_headers(call, write_refusal(request), end_stream=True)
            connection.finish(call)
            return
        if request.timeout is not None:
            call.scope.deadline = trio.current_time() + request.timeout
        answer = _Answer(connection, call)
        bug = None
        status = Status(StatusCode.DEADLINE_EXCEEDED, "no answer before the deadline")
        with call.scope:
            try:
                status = await self._dispatch(answer, request)
            except Exception as error:  # noqa: BLE001 - a servicer's bug ends its call, and is reported below
                bug = error
                status = Status(StatusCode.INTERNAL, _OPAQUE)
        if call.failure is not None:
            status = _status_of(call.failure)
        answer.end(status)
        connection.finish(call)
        if bug is not None and call.failure is not bug:
            self._on_bug(bug)

    async def _dispatch(self, answer: "_Answer", request: RequestHeaders) -> Status:
        service = self._services.get(request.service)
        method = service.methods.get(request.method) if service is not None else None
        if method is None:
            text = f"/{request.service}/{request.method}"[:_ECHO] + " is not served here"
            return Status(StatusCode.UNIMPLEMENTED, text)
        seconds = self._limits.request
        if not answer.call.has_message:
            with trio.move_on_after(seconds) as waiting:
                await answer.call.arrival()
            if waiting.cancelled_caught:
                text = f"the request was not complete after {seconds:g} s"
                return Status(StatusCode.DEADLINE_EXCEEDED, text)
        data = await answer.call.receive()
        if data is None:
            return Status(StatusCode.INTERNAL, "expected one message, got none")
        try:
            message = method.signature.request_type.FromString(data)
        except DecodeError as error:
            return Status(StatusCode.INTERNAL, f"unreadable message: {error}")
        try:
            response = method.method_fn(message, request=request)
            if method.signature.cardinality is Cardinality.UNARY_STREAM:
                await answer.stream(response)
            else:
                scope = answer.call.scope
                scope.deadline = min(scope.deadline, trio.current_time() + self._limits.answer)
                with self._answering.one():
                    await answer.send(await response)
        except RpcFailedError as error:
            status: Status = error.status
            return status
        return Status(StatusCode.OK)


def bug_limit() -> Callable[[Exception], None]:
    """Return the `on_bug` of one life of a server: it logs each bug of a call, and raises the last of `_BUGS`."""
    bugs = 0

    def count(error: Exception) -> None:
        nonlocal bugs
        bugs += 1
        say_bug("a call failed on a bug of the plugin", error, "a call")
        if bugs >= _BUGS:
            raise error

    return count


class _Answer:
    """The answer to one call; its headers are sent once, before the first message, or never."""

    def __init__(self, connection: Connection, call: Call) -> None:
        self.call = call
        self._connection = connection
        self._started = False

    async def stream(self, messages: Any) -> None:
        self._start()
        async with contextlib.aclosing(messages):
            async for message in messages:
                await self.call.send(message)

    async def send(self, message: Any) -> None:
        self._start()
        await self.call.send(message)

    def _start(self) -> None:
        self._started = True
        self._connection.send_headers(self.call, RESPONSE)

    def end(self, status: Status) -> None:
        trailers = write_trailers(status)
        if not self._started:
            trailers = [*RESPONSE, *trailers]
        self._connection.send_headers(self.call, trailers, end_stream=True)


def _status_of(failure: Exception) -> Status:
    match failure:
        case MessageTooLargeError():
            return Status(StatusCode.RESOURCE_EXHAUSTED, str(failure))
        case ProtocolError():
            return Status(StatusCode.INTERNAL, str(failure))
        case _:
            return Status(StatusCode.CANCELLED, str(failure))
