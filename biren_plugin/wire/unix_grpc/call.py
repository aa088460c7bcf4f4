"""One call on a connection: its messages in, its messages out, and how it ended.

The connection feeds it (`take_data`, `end_remote`, `fail`), a handler or a stub uses it. Whoever
waits in a call is woken by whatever ends it: there is no state in which a call waits for a peer
that has gone.
"""

import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, Self

import trio
from purerpc import Status
from purerpc.grpclib.buffers import MessageWriteBuffer
from purerpc.grpclib.exceptions import MessageTooLargeError, UnsupportedMessageEncodingError

if TYPE_CHECKING:
    from biren_plugin.wire.unix_grpc.connection import Connection

_PREFIX: Final = struct.Struct(">BI")  # whether compressed, length


class Message(Protocol):
    """As much of a generated protobuf class as the wire needs."""

    def SerializeToString(self) -> bytes:
        """The message's bytes."""

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """The message of these bytes."""


class CallEnded(Exception):
    """The call was over before it was done: reset, connection lost, or our own shutdown."""


class Call:
    """A stream of HTTP/2 seen as a gRPC call. Owned by its connection until `discard`."""

    def __init__(self, connection: "Connection", stream_id: int) -> None:
        self.stream_id = stream_id
        self.scope = trio.CancelScope()
        """Around the handler, on a server: cancelled when the peer ends the call."""
        self.reset_by_peer = False
        """The peer takes nothing more of this call."""
        self.is_over = False
        """Nobody on our side uses it any more."""
        self.status: Status | None = None
        """What the server's trailers said, on a client."""
        self._connection = connection
        self._limits = connection.limits
        self._unfinished = bytearray()
        self._messages: deque[tuple[bytes, int]] = deque()
        self._unreturned = 0  # window that the peer has used and not got back, bytes
        self._remote_ended = False
        self._failure: Exception | None = None
        self._waiting = trio.lowlevel.ParkingLot()

    def take_data(self, data: bytes, flow_controlled_length: int) -> None:
        """Data of this call arrived. Raises purerpc's `ProtocolError`s: too large, compressed."""
        # Not purerpc's MessageReadBuffer: it keeps some 90 bytes for each frame, however small.
        self._connection.return_window(
            self.stream_id, flow_controlled_length - len(data)
        )  # padding
        self._unreturned += len(data)
        self._unfinished += data
        while len(self._unfinished) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(self._unfinished)
            if length > self._limits.message_size:
                raise MessageTooLargeError(
                    f"a message of {length} bytes; {self._limits.message_size} are allowed"
                )
            if compressed:
                raise UnsupportedMessageEncodingError("a compressed message; send identity")
            end = _PREFIX.size + length
            if len(self._unfinished) < end:
                break
            # Only on a server: a client's reader may be a moment behind a burst of answers.
            too_many = len(self._messages) >= self._limits.unread_requests
            if too_many and not self._connection.client_side:
                raise MessageTooLargeError(f"{len(self._messages)} messages are unread already")
            self._messages.append((bytes(self._unfinished[_PREFIX.size : end]), end))
            del self._unfinished[:end]
        self._wake()

    def end_remote(self) -> None:
        """The peer has sent all it will send."""
        self._remote_ended = True
        self._wake()

    def fail(self, cause: Exception) -> None:
        """The call is over, whoever still uses it gets `cause`. The first cause stands."""
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
        """Whether the peer has sent all it will send."""
        return self._remote_ended

    @property
    def failure(self) -> Exception | None:
        """What ended the call before its time."""
        return self._failure

    def _wake(self) -> None:
        self._waiting.unpark_all()

    async def arrival(self) -> None:
        """Returns when there is a message, or will be none. Raises as `receive`."""
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            if self._remote_ended:
                return
            await self._waiting.park()

    async def receive(self) -> bytes | None:
        """The next message, or None after the last. Raises `CallEnded` and what `fail` was given."""
        await self.arrival()
        if not self._messages:
            return None
        message, flow_controlled_length = self._messages.popleft()
        self._return_window(flow_controlled_length)
        return message

    def discard(self) -> None:
        """The call is done: what nobody will read no longer takes room in the connection's window."""
        self.is_over = True
        self._messages.clear()
        self._return_window(self._unreturned)

    def _return_window(self, size: int) -> None:
        self._unreturned -= size
        if size > 0:
            self._connection.return_window(self.stream_id, size)

    async def send(self, message: Message) -> None:
        """Queues one message for the peer, as fast as its windows let it."""
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
