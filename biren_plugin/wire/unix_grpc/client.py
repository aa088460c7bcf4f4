"""The client's side, in the shape that purerpc's generated stubs expect of their channel.

A stub reaches into `channel._grpc_socket`, `_host` and `_port` (purerpc 0.8, `client.Client.rpc`)
and takes no deadline: callers put `trio.fail_after` around each call.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
from google.protobuf.message import DecodeError
from h2.errors import ErrorCodes
from purerpc import Status, StatusCode
from purerpc.grpclib.events import ResponseEnded
from purerpc.grpclib.exceptions import ProtocolError, raise_status

from biren_plugin.wire.unix_grpc.call import Call, Message, MessageParts
from biren_plugin.wire.unix_grpc.connection import Connection
from biren_plugin.wire.unix_grpc.headers import write_request
from biren_plugin.wire.unix_grpc.limits import DEFAULT_LIMITS, Limits

T = TypeVar("T")


class Channel:
    """A client's connection as purerpc's stubs see it."""

    _host = "localhost"
    _port = 0

    def __init__(self, connection: Connection) -> None:
        self._grpc_socket = _CallStarter(connection)


class _CallStarter:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start_request(
        self,
        _scheme: str,
        service: str,
        method: str,
        _message_type: str,
        _authority: str,
        *,
        custom_metadata: tuple[()] | None = (),
    ) -> "_ClientCall":
        assert not custom_metadata  # the device plugin API has none
        call = self._connection.start_call(write_request(service, method))
        return _ClientCall(self._connection, call)


class _ClientCall:
    def __init__(self, connection: Connection, call: Call) -> None:
        self._connection = connection
        self._call = call
        self._response_type: type[Message] | None = None

    @property
    def end_stream_event(self) -> ResponseEnded:
        status = self._call.status or Status(StatusCode.UNKNOWN, "the answer had no status")
        return ResponseEnded(self._call.stream_id, status)

    def expect_message_type(self, response_type: type[Message]) -> None:
        self._response_type = response_type

    async def send_message(self, message: Message) -> None:
        with self._resetting():
            await self._call.send(message)

    async def close(self) -> None:
        self._connection.send_end(self._call)

    async def receive_message(self) -> Any:
        with self._resetting():
            data = await self._call.receive()
            if data is not None:
                return self._read(data)
        self.leave()
        return None

    def _read(self, data: bytes) -> Any:
        assert self._response_type is not None
        try:
            return self._response_type.FromString(data)
        except DecodeError as error:
            raise ProtocolError(f"unreadable answer: {error}") from error

    def pass_on(self, take: Callable[[bytes], None]) -> MessageParts:
        return self._call.pass_on(take)

    def leave(self) -> None:
        """End the call on our side, whatever the server still sends."""
        self._connection.finish(self._call, ErrorCodes.CANCEL)

    @contextmanager
    def _resetting(self) -> Iterator[None]:
        try:
            yield
        except (
            BaseException
        ):  # not only errors: a caller that is cancelled must not leave the call open
            self.leave()
            raise


async def responses(method: Any, request: Message) -> AsyncGenerator[Any, None]:
    """Yield the messages of a unary-stream `method` of a stub; reset the call when the reader leaves.

    purerpc's own wrapper (`wrappers.ClientStubUnaryStream`) leaves its inner generator to the
    garbage collector. Raises the error that ended the call.
    """
    call: _ClientCall = await method._stream_fn(metadata=None)
    try:
        await call.send_message(request)
        await call.close()
        while (message := await call.receive_message()) is not None:
            yield message
        raise_status(call.end_stream_event.status)
    finally:
        call.leave()


async def take_answer(method: Any, request: Message, take: Callable[[bytes], object]) -> None:
    """Call a unary-unary `method` of a stub; `take` gets the parts of the answer's message as they arrive.

    For an answer that is too long to be held whole. A `DecodeError` of `take` ends the call as an unreadable
    answer does. Raises the error that ended the call.
    """

    def take_part(part: bytes) -> None:
        try:
            take(part)
        except DecodeError as error:
            raise ProtocolError(f"unreadable answer: {error}") from error

    call: _ClientCall = await method._stream_fn(metadata=None)
    try:
        parts = call.pass_on(take_part)
        await call.send_message(request)
        await call.close()
        await call.receive_message()  # returns None at the end
        raise_status(call.end_stream_event.status)
        if not parts.is_whole:
            raise ProtocolError("the answer ended before its message did")
    finally:
        call.leave()


async def with_channel(
    stream: trio.abc.Stream,
    use: Callable[[Channel], Awaitable[T]],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> T:
    """Return the result of `use`, which may make calls over `stream`; then close `stream`.

    Raises what `use` raises; its calls raise `ConnectionEnded` when the connection ends.
    """
    connection = Connection(stream, limits)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        try:
            result = await use(Channel(connection))
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery's group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result
