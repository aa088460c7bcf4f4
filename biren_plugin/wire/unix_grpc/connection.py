"""One HTTP/2 connection over any trio stream, for either side.

1. One task reads, one task writes; a call never touches the stream, so cancelling a call cannot
   tear a frame.
2. A bad frame that belongs to a call ends that call; one that breaks the connection ends the
   connection with GOAWAY. Frames that came before it are still processed.
3. However the connection ends, every call in it fails with the cause.
4. Nothing grows without bound: unread messages by the windows, unsent bytes by `limits.unsent`
   (then the reader stops reading), the wait for a peer that does not read by `limits.unread`.
"""

import contextlib
from collections.abc import Awaitable, Callable

import h2.errors
import h2.events
import h2.exceptions
import trio
from purerpc import ProtocolError

from biren_plugin.wire.unix_grpc.call import Call, CallEnded
from biren_plugin.wire.unix_grpc.headers import Header, read_status
from biren_plugin.wire.unix_grpc.http2 import (
    RST_STREAM,
    WINDOW_UPDATE,
    FrameCutter,
    FrameTooLong,
    bound_header_table,
    new_h2,
    stream_of,
)
from biren_plugin.wire.unix_grpc.limits import Limits
from biren_plugin.wire.unix_grpc.outbox import Outbox

_READ_SIZE = 64 * 1024


class ConnectionEnded(CallEnded):
    """The connection under a call is gone; the text gives the reason."""


class Connection:
    """Owns `stream` and closes it. `run` lasts as long as the connection.

    `on_request` (servers) is the task of each call, given this connection, the call and its headers.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
        *,
        on_request: "Callable[[Connection, Call, list[Header]], Awaitable[None]] | None" = None,
    ) -> None:
        self.limits = limits
        self._stream = stream
        self._on_request = on_request
        self.client_side = on_request is None
        self._calls: dict[int, Call] = {}
        self._cutter = FrameCutter(
            expects_preface=not self.client_side, frame_size=limits.frame_size
        )
        self._outbox = Outbox(stream, limits)
        self._settings_seen = trio.Event()
        self._end: ConnectionEnded | None = None
        self.h2 = new_h2(limits, client_side=self.client_side)
        self.windows = trio.lowlevel.ParkingLot()
        """Sends wait here for the peer's window updates, whichever call they are for. An update costs
        nothing for calls that do not wait, which are nearly all."""

    async def run(self) -> None:
        """Run until the peer leaves or breaks the protocol, or until cancelled."""
        end = ConnectionEnded("our side closed the connection")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._expect_settings)
                self.flush()
                end = await self._read(nursery)
                self.end(end)
                nursery.cancel_scope.cancel()
        finally:
            if self._end is None and not self.client_side:
                await self._leave()
            self.end(end)
            self._outbox.close()
            await trio.aclose_forcefully(self._stream)

    async def _leave(self) -> None:
        """Shut down: end the calls, then give the peer a moment to close the connection.

        A kubelet whose stream was ended drops its client; a plugin that registers before that is done
        loses the new client with the old one.
        """
        if self._outbox.is_torn:
            return
        for call in self._calls.values():
            if not call.reset_by_peer:
                with contextlib.suppress(h2.exceptions.ProtocolError):  # it had just ended
                    self.h2.reset_stream(call.stream_id, h2.errors.ErrorCodes.CANCEL)
        self.h2.close_connection()
        self.flush()
        with (
            trio.CancelScope(deadline=trio.current_time() + self.limits.closing, shield=True),
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            await self._stream.send_all(self._outbox.take())
            while await self._stream.receive_some(_READ_SIZE):
                pass

    def end(self, cause: ConnectionEnded) -> None:
        """Fail every call, since the connection is gone. The first cause stays."""
        if self._end is None:
            self._end = cause
        for call in list(self._calls.values()):
            call.fail(self._end)

    # Reading

    async def _read(self, nursery: trio.Nursery) -> ConnectionEnded:
        while True:
            try:
                data = bytes(await self._stream.receive_some(_READ_SIZE))
            except trio.BrokenResourceError:
                return ConnectionEnded("the peer broke the connection")
            except trio.ClosedResourceError:
                return self._end or ConnectionEnded("our side closed the connection")
            if not data:
                return ConnectionEnded("the peer closed the connection")
            try:
                for frame in self._cutter.cut(data):
                    if self._is_late(frame):
                        continue
                    for event in self.h2.receive_data(frame):
                        self._handle(event, nursery)
            except FrameTooLong as error:
                self.h2.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
                return await self._send_goaway(error)
            except (h2.exceptions.ProtocolError, ValueError) as error:
                # ValueError: hyperframe and h2 3.2 raise it unwrapped for some bad settings.
                return await self._send_goaway(error)
            if self._end is not None:
                return self._end
            if len(self.h2.remote_settings) > self.limits.settings:
                self.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                return await self._send_goaway("too many different settings")
            self.flush()
            await self.room_to_send()

    def _is_late(self, frame: bytes) -> bool:
        """Whether the frame is a WINDOW_UPDATE or RST_STREAM for a call that is over.

        RFC 9113 (5.1) wants such frames ignored, and grpcio sends them. h2 3.2 forgets closed streams as
        soon as it opens another, and then treats such a frame as a connection error.
        """
        stream_id = stream_of(frame, RST_STREAM, WINDOW_UPDATE)
        return stream_id is not None and stream_id not in self._calls

    async def _send_goaway(self, error: object) -> ConnectionEnded:
        end = ConnectionEnded(f"the peer broke the protocol: {error}")
        self.end(end)  # first: h2 accepts nothing more from the calls
        self.flush()
        with trio.move_on_after(self.limits.closing):
            await self._outbox.drained()
        return end

    async def _expect_settings(self) -> None:
        with trio.move_on_after(self.limits.handshake):
            await self._settings_seen.wait()
            return
        self.end(ConnectionEnded(f"the peer sent no SETTINGS in {self.limits.handshake:g} s"))
        await trio.aclose_forcefully(self._stream)

    def _handle(self, event: h2.events.Event, nursery: trio.Nursery) -> None:
        match event:
            case h2.events.DataReceived():
                self._take_data(event)
            case h2.events.RequestReceived():
                assert self._on_request is not None  # h2 gives a client no RequestReceived
                new = self._new_call(event.stream_id)
                nursery.start_soon(self._on_request, self, new, event.headers)
            case h2.events.RemoteSettingsChanged():
                self._settings_seen.set()
                bound_header_table(self.h2, self.limits)
                self.windows.unpark_all()
            case h2.events.WindowUpdated():
                self.windows.unpark_all()
            case h2.events.ConnectionTerminated():
                self.end(ConnectionEnded(f"the peer sent GOAWAY ({event.error_code!r})"))
            case _:
                call = self._calls.get(getattr(event, "stream_id", 0))
                if call is not None:
                    self._handle_for(call, event)
                # else pings, acknowledgements, priorities: h2 answers them by itself

    def _handle_for(self, call: Call, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                if event.stream_ended:
                    call.status = read_status(event.headers)
            case h2.events.StreamEnded():
                call.end_remote()
            case h2.events.StreamReset():
                call.reset_by_peer = True
                call.fail(CallEnded(f"the peer reset the call ({event.error_code!r})"))

    def _take_data(self, event: h2.events.DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None or call.failure is not None:
            self.return_window(event.stream_id, event.flow_controlled_length)
            return
        try:
            call.take_data(event.data, event.flow_controlled_length)
        except ProtocolError as error:
            call.fail(error)

    # Calls

    def _new_call(self, stream_id: int) -> Call:
        call = self._calls[stream_id] = Call(self, stream_id)
        return call

    def start_call(self, headers: list[Header]) -> Call:
        """Start a client's call. Raises `ConnectionEnded`."""
        if self._end is not None:
            raise self._end
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, headers)
        self.flush()
        return self._new_call(stream_id)

    def send_headers(self, call: Call, headers: list[Header], *, end_stream: bool = False) -> None:
        """Queue a header list of `call`, unless the peer has ended the call."""
        if self._end is None and not call.reset_by_peer:
            self.h2.send_headers(call.stream_id, headers, end_stream=end_stream)
            self.flush()

    def send_end(self, call: Call) -> None:
        """Queue the end of a client's request."""
        if self._end is None and call.failure is None and not call.is_over:
            self.h2.end_stream(call.stream_id)
            self.flush()

    def finish(
        self, call: Call, error: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR
    ) -> None:
        """Forget a call that is done on our side, and reset it if the peer is still sending."""
        if self._calls.pop(call.stream_id, None) is None:
            return
        call.discard()
        if self._end is None and not call.reset_by_peer and not call.remote_ended:
            self.h2.reset_stream(call.stream_id, error)
            self.flush()

    def send_window(self, stream_id: int) -> int:
        """Return how many bytes the peer would accept now, in one frame."""
        window: int = self.h2.local_flow_control_window(stream_id)
        frame: int = self.h2.max_outbound_frame_size
        return min(window, frame)

    def return_window(self, stream_id: int, size: int) -> None:
        """Let the peer send `size` bytes more."""
        if self._end is None and size > 0:
            self.h2.acknowledge_received_data(size, stream_id)
            self.flush()

    # Writing

    def flush(self) -> None:
        """Queue the bytes that h2 holds for the peer."""
        self._outbox.put(self.h2.data_to_send())

    async def room_to_send(self) -> None:
        """Wait while the peer leaves too much unread."""
        await self._outbox.room()

    async def drained(self) -> None:
        """Wait until everything that is queued was written, or the connection has ended."""
        await self._outbox.drained()

    async def _write(self) -> None:
        try:
            await self._outbox.run()
        except trio.TooSlowError:
            self.end(ConnectionEnded(f"the peer read nothing for {self.limits.unread:g} s"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.end(ConnectionEnded("the peer accepts no more data"))
        self._outbox.close()
        await trio.aclose_forcefully(self._stream)  # and the reader ends with it
