"""HTTP/2 without I/O: received bytes cut into whole frames, and h2 set up within our limits.

h2 drops the events of all frames that came in the same `receive_data` call if one of them is
bad, buffers a frame up to its announced 16 MiB before it checks the length, and recurses once for
each unknown frame. It does none of that when it is fed frame by frame, with the length checked here.
"""

from collections.abc import Iterator
from typing import Final

import h2.config
import h2.connection
import h2.settings

from biren_plugin.wire.unix_grpc.limits import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9
RST_STREAM = 3
WINDOW_UPDATE = 8


class FrameTooLong(ValueError):
    """A frame announced more bytes than the limit; the rest of the connection cannot be read."""


class FrameCutter:
    """Bytes in, pieces out: first the client's preface (if `expects_preface`), then whole frames."""

    def __init__(self, *, expects_preface: bool, frame_size: int) -> None:
        self._buffer = bytearray()
        self._preface_left = len(PREFACE) if expects_preface else 0
        self._frame_size = frame_size

    def cut(self, data: bytes) -> Iterator[bytes]:
        """Yield each piece that `data` completes; keep the rest. Raises `FrameTooLong`."""
        self._buffer += data
        if self._preface_left and self._buffer:
            # Passed on at once, however short: h2 refuses the first wrong byte.
            start = bytes(self._buffer[: self._preface_left])
            del self._buffer[: len(start)]
            self._preface_left -= len(start)
            yield start
        while len(self._buffer) >= FRAME_HEADER:
            length = int.from_bytes(self._buffer[:3])
            if length > self._frame_size:
                raise FrameTooLong(f"a frame of {length} bytes; {self._frame_size} are allowed")
            end = FRAME_HEADER + length
            if len(self._buffer) < end:
                return
            frame = bytes(self._buffer[:end])
            del self._buffer[:end]
            yield frame


def stream_of(frame: bytes, *kinds: int) -> int | None:
    """Return the stream that a whole frame of one of these kinds belongs to; None for any other piece."""
    if len(frame) < FRAME_HEADER or frame[3] not in kinds:
        return None
    return int.from_bytes(frame[5:9]) & 0x7FFF_FFFF or None


_CLOSED_STREAMS_REMEMBERED: Final = 1024


class H2Connection(h2.connection.H2Connection):  # type: ignore[misc]  # h2 3.2 has no types
    """One end of an HTTP/2 connection, without I/O."""

    # h2 remembers 65,536 closed streams, 6 MiB, on a connection that lives for months.
    MAX_CLOSED_STREAMS = _CLOSED_STREAMS_REMEMBERED


def new_h2(limits: Limits, *, client_side: bool) -> H2Connection:
    """Return a connection whose opening frames are ready to be sent."""
    codes = h2.settings.SettingCodes
    connection = H2Connection(
        h2.config.H2Configuration(
            client_side=client_side,
            header_encoding=None,
            validate_inbound_headers=False,  # `headers` checks them for each call
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    # h2 has no public way to choose the settings of the first SETTINGS frame.
    connection.local_settings = h2.settings.Settings(
        client=client_side,
        initial_values={
            codes.MAX_CONCURRENT_STREAMS: limits.calls,
            # One message with its 5-byte prefix always fits, so that a message arrives whole even
            # while no task reads.
            codes.INITIAL_WINDOW_SIZE: limits.message_size + 5,
            codes.MAX_FRAME_SIZE: limits.frame_size,
            codes.MAX_HEADER_LIST_SIZE: limits.header_list_size,
            codes.ENABLE_PUSH: 0,
        },
    )
    connection.decoder.max_header_list_size = limits.header_list_size
    connection.initiate_connection()
    connection.increment_flow_control_window(limits.connection_window - 65_535)
    return connection


def bound_header_table(connection: H2Connection, limits: Limits) -> None:
    """Bound our header table after the peer's SETTINGS, which allow any size; the table would stay full."""
    encoder = connection.encoder
    encoder.header_table_size = min(encoder.header_table_size, limits.header_table_size)
    changes = encoder.table_size_changes
    if len(changes) > 2:  # hpack would write every change; RFC 7541, 4.2: the smallest and the last
        changes[:] = [min(changes), changes[-1]]
    # hpack forgets that it has changes to write when it is given the same size once more.
    encoder.header_table.resized = bool(changes)
