"""One call on a connection: its messages in both directions, and how it ended.

The connection feeds the call (`take_data`, `end_remote`, `fail`); a handler or a stub uses it. Every
end of a call wakes every task that waits in it, so a call never waits for a peer that has gone.
"""

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

import trio
from purerpc import Status
from purerpc.grpclib.buffers import MessageWriteBuffer
from purerpc.grpclib.exceptions import (
    MessageTooLargeError,
    ProtocolError,
    UnsupportedMessageEncodingError,
)

if TYPE_CHECKING:
    from biren_plugin.wire.unix_grpc.connection import Connection

_PREFIX: Final = struct.Struct(">BI")  # whether compressed, length


class Message(Protocol):
    """The part of a generated protobuf class that the wire needs."""

    def SerializeToString(self) -> bytes:
        """The message's bytes."""

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """The message of these bytes."""


class CallEnded(Exception):
    """The call ended before it was complete: reset, connection lost, or our own shutdown."""


def _announced(data: bytearray, limit: int) -> int | None:
    """Return the length of the message that begins here; None if its prefix is not whole yet.

    Raises purerpc's `ProtocolError` for a message that is longer than `limit` or compressed.
    """
    if len(data) < _PREFIX.size:
        return None
    compressed, length = _PREFIX.unpack_from(data)
    if length > limit:
        raise MessageTooLargeError(f"a message of {length} bytes; {limit} are allowed")
    if compressed:
        raise UnsupportedMessageEncodingError("a compressed message; send identity")
    return int(length)


class MessageParts:
    """The one message of an answer, given to `take` as its parts arrive: nothing holds it whole."""

    def __init__(self, take: Callable[[bytes], None], limit: int) -> None:
        self._take = take
        self._limit = limit
        self._prefix = bytearray()
        self._left: int | None = None
        """The bytes of the message that have not arrived; None before its prefix has."""

    @property
    def is_whole(self) -> bool:
        """Whether the whole message has arrived."""
        return self._left == 0

    def take_data(self, data: bytes) -> None:
        """Take data of the call. Raises purerpc's `ProtocolError`, also for a second message."""
        if self._left is None:
            self._prefix += data
            self._left = _announced(self._prefix, self._limit)
            if self._left is None:
                return
            data = bytes(self._prefix[_PREFIX.size :])
            self._prefix.clear()
        if len(data) > self._left:
            raise ProtocolError("more than one message in an answer that has one")
        self._left -= len(data)
        self._take(data)


class Call:
    """An HTTP/2 stream as a gRPC call. Owned by its connection until `discard`."""

    def __init__(self, connection: "Connection", stream_id: int) -> None:
        self.stream_id = stream_id
        self.scope = trio.CancelScope()
        """On a server, the scope around the handler: cancelled when the peer ends the call."""
        self.reset_by_peer = False
        """The peer accepts nothing more for this call."""
        self.is_over = False
        """No task on our side uses the call any more."""
        self.status: Status | None = None
        """On a client, the status in the server's trailers."""
        self._connection = connection
        self._limits = connection.limits
        self._unfinished = bytearray()
        self._parts: MessageParts | None = None
        self._messages: deque[tuple[bytes, int]] = deque()
        self._unreturned = 0  # bytes of window that the peer has used and that were not returned
        self._remote_ended = False
        self._failure: Exception | None = None
        self._waiting = trio.lowlevel.ParkingLot()

    def pass_on(self, take: Callable[[bytes], None]) -> "MessageParts":
        """On a client, give the answer's one message to `take` as its parts arrive: `receive` has none.

        A part takes no room in the windows. A `ProtocolError` of `take` ends the call.
        """
        self._parts = MessageParts(take, self._limits.message_size)
        return self._parts

    def take_data(self, data: bytes, flow_controlled_length: int) -> None:
        """Take data of this call. Raises purerpc's `ProtocolError` for a message too large or compressed."""
        if self._parts is not None:
            self._connection.return_window(self.stream_id, flow_controlled_length)
            self._parts.take_data(data)
            return
        padding = flow_controlled_length - len(data)
        self._connection.return_window(self.stream_id, padding)
        # purerpc's MessageReadBuffer keeps some 90 bytes for each frame, however small.
        self._unreturned += len(data)
        self._unfinished += data
        while (length := _announced(self._unfinished, self._limits.message_size)) is not None:
            end = _PREFIX.size + length
            if len(self._unfinished) < end:
                break
            # Servers only: a client's reader may lag behind a burst of answers.
            too_many = len(self._messages) >= self._limits.unread_requests
            if too_many and not self._connection.client_side:
                raise MessageTooLargeError(f"{len(self._messages)} messages are unread already")
            self._messages.append((self._take_message(end), end))
        self._wake()

    def _take_message(self, end: int) -> bytes:
        """The first message, without its prefix. The last one of what is there is not copied."""
        if end == len(self._unfinished):
            message, self._unfinished = self._unfinished, bytearray()
            del message[: _PREFIX.size]
            return cast("bytes", message)  # protobuf takes both, its types name one
        copied = bytes(memoryview(self._unfinished)[_PREFIX.size : end])
        del self._unfinished[:end]
        return copied

    def end_remote(self) -> None:
        """Note that the peer has sent everything."""
        self._remote_ended = True
        self._wake()

    def fail(self, cause: Exception) -> None:
        """End the call: every task that uses it gets `cause`. The first cause stays."""
        if self._failure is None:
            self._failure = cause
        self.scope.cancel()
        self._wake()
        self._connection.windows.unpark_all()

    @property
    def has_message(self) -> bool:
        """Whether `receive` would return at once."""
        return bool(self._messages)

    @property
    def remote_ended(self) -> bool:
        """Whether the peer has sent everything."""
        return self._remote_ended

    @property
    def failure(self) -> Exception | None:
        """The error that ended the call early."""
        return self._failure

    def _wake(self) -> None:
        self._waiting.unpark_all()

    async def arrival(self) -> None:
        """Wait until a message is there or none will come. Raises as `receive`."""
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            if self._remote_ended:
                return
            await self._waiting.park()

    async def receive(self) -> bytes | None:
        """Return the next message, or None after the last. Raises the cause given to `fail`."""
        await self.arrival()
        if not self._messages:
            return None
        message, flow_controlled_length = self._messages.popleft()
        self._return_window(flow_controlled_length)
        return message

    def discard(self) -> None:
        """Drop unread messages, so that they no longer take room in the connection's window."""
        self.is_over = True
        self._messages.clear()
        self._return_window(self._unreturned)

    def _return_window(self, size: int) -> None:
        self._unreturned -= size
        if size > 0:
            self._connection.return_window(self.stream_id, size)

    async def send(self, message: Message) -> None:
        """Queue one message for the peer, as fast as its windows allow."""
        outgoing = MessageWriteBuffer(max_message_length=self._limits.message_size)
        outgoing.write_message(message.SerializeToString())
        while len(outgoing):
            room = await self._window()
            chunk = outgoing.data_to_send(min(room, len(outgoing)))
            self._connection.h2.send_data(self.stream_id, chunk)
            self._connection.flush()
        await self._connection.room_to_send()

    async def _window(self) -> int:
        limits = self._limits
        if self._failure is None and (window := self._connection.send_window(self.stream_id)) > 0:
            return window
        with trio.move_on_after(limits.unread):
            while self._failure is None:
                if (window := self._connection.send_window(self.stream_id)) > 0:
                    return window
                await self._connection.windows.park()
        self.fail(CallEnded(f"the peer kept its window closed for {limits.unread:g} s"))
        assert self._failure is not None
        raise self._failure
