"""Cuts received bytes into whole HTTP/2 frames, so that a bad frame does not take others with it.

h2 drops the events of all frames that came in the same `receive_data` call if one of them is
bad, buffers a frame up to its announced 16 MiB before it checks the length, and recurses once for
each unknown frame. It does none of that when it is fed frame by frame, with the length checked here.
"""

from collections.abc import Iterator

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
