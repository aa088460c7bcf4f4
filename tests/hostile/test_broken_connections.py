"""A connection that breaks HTTP/2's rules is closed with GOAWAY, and nobody else notices."""

import struct
from collections.abc import Callable, Iterator

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hostile import frames
from tests.hostile.frames import HeaderWriter
from tests.hostile.service import well_afterwards

GREETING = frames.PREFACE + frames.settings()


def open_headers(stream_id: int = 1) -> bytes:
    """A header block that does not end."""
    return frames.frame(frames.HEADERS, 0, stream_id, HeaderWriter().block([("x", "y")]))


BROKEN = {
    "garbage": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(4096),
    "garbage after the preface": frames.PREFACE + b"\xff" * 100,
    "garbage after the greeting": GREETING + b"\xff" * 100,
    "no SETTINGS first": frames.PREFACE + frames.data(1, b"x"),
    "a frame longer than the limit": GREETING + frames.frame(frames.DATA, 0, 1, bytes(16385)),
    "the announcement of 16 MiB": GREETING + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "DATA on an idle stream": GREETING + frames.data(99, b"x"),
    "DATA on the connection": GREETING + frames.data(0, b"x"),
    "a stream of ours": GREETING + HeaderWriter().request(2),
    "a push": GREETING + frames.frame(frames.PUSH_PROMISE, 4, 1, struct.pack(">I", 2)),
    "DATA within headers": GREETING + open_headers() + frames.data(1, b"x"),
    "CONTINUATION out of nowhere": GREETING + frames.frame(frames.CONTINUATION, 4, 1),
    "headers without end": GREETING + open_headers() + frames.frame(frames.CONTINUATION, 0, 1) * 99,
    "headers that are no HPACK": GREETING + frames.frame(frames.HEADERS, 4, 1, b"\xff" * 50),
    "a header list too long": GREETING + HeaderWriter().request(1, "Echo", ("x", "y" * 16384)),
    "padding longer than the frame": GREETING + frames.frame(frames.HEADERS, 12, 1, b"\xffabc"),
    "a PING too short": GREETING + frames.ping(b"123"),
    "a PING on a stream": GREETING + frames.frame(frames.PING, 0, 1, b"12345678"),
    "RST_STREAM too short": GREETING
    + HeaderWriter().request(1)
    + frames.frame(frames.RST_STREAM, 0, 1, b"12"),
    "GOAWAY too short": GREETING + frames.frame(frames.GOAWAY, 0, 0, b"1234"),
    "PRIORITY too short": GREETING + frames.frame(frames.PRIORITY, 0, 1, b"1"),
    "WINDOW_UPDATE too short": GREETING + frames.frame(frames.WINDOW_UPDATE, 0, 0, b"1"),
    "WINDOW_UPDATE of nothing": GREETING + frames.window_update(0, 0),
    "a window beyond its bound": GREETING + frames.window_update(0, 2**31 - 1),
    "SETTINGS cut short": GREETING + frames.frame(frames.SETTINGS, 0, 0, b"12345"),
    "SETTINGS on a stream": GREETING + frames.frame(frames.SETTINGS, 0, 1),
    "SETTINGS: push 2": GREETING + frames.settings({2: 2}),
    "SETTINGS: window 2^31": GREETING + frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}),
    "SETTINGS: frames of 5": GREETING + frames.settings({frames.MAX_FRAME_SIZE: 5}),
    "SETTINGS: frames of 2^32 - 1": GREETING + frames.settings({frames.MAX_FRAME_SIZE: 2**32 - 1}),
}


def whole(sent: bytes) -> Iterator[bytes]:
    yield sent


def in_single_bytes(sent: bytes) -> Iterator[bytes]:
    for at in range(min(len(sent), 300)):
        yield sent[at : at + 1]
    yield sent[300:]


@pytest.mark.parametrize("cut", [whole, in_single_bytes])
@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_connection_is_closed_by_the_server(
    autojump_clock: MockClock, sent: bytes, cut: Callable[[bytes], Iterator[bytes]]
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        for piece in cut(sent):
            await peer.send(piece)
            await wait_all_tasks_blocked()
            if peer.left.is_set():
                break
        await peer.until_closed()
        assert peer.goaway is not None or sent in (BROKEN["garbage"], BROKEN["zeros"])


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
async def test_a_connection_that_breaks_ends_its_calls_and_no_others(
    autojump_clock: MockClock, sent: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(
            peer.write.call(1, "Echo", b"hello"),
            peer.write.call(3, "Watch"),
            peer.write.call(5, "Hang"),
        )
        await peer.answer(1)
        # Requests that are dispatched in the same moment as the connection breaks.
        calls = b"".join(peer.write.call(each, "Echo", b"late") for each in (7, 9))
        await peer.send(calls, sent.removeprefix(GREETING))
        await peer.until_closed()
