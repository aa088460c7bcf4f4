"""One end of a connection in the tests' hands: writes what it is told, notes all that it gets."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import attrs
import hyperframe.frame
import trio
import trio.testing
from hpack import Decoder

from tests.hostile import frames
from tests.hostile.frames import HeaderWriter

_PATIENCE = 1e6  # of the mock clock: a wait in vain fails instead of hanging


@attrs.define
class Answer:
    """What came back in one call."""

    headers: dict[bytes, bytes] = attrs.Factory(dict)
    trailers: dict[bytes, bytes] = attrs.Factory(dict)
    """The list that ended the stream; of an answer that is trailers only, the same list."""
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The number in `grpc-status`."""
        return int(self.trailers[b"grpc-status"])

    @property
    def text(self) -> str:
        """`grpc-message`, still percent-encoded."""
        return self.trailers.get(b"grpc-message", b"").decode()

    @property
    def messages(self) -> list[bytes]:
        """The whole messages in the body."""
        found, rest = [], self.body
        while len(rest) >= 5 and len(rest) >= 5 + (length := int.from_bytes(rest[1:5])):
            found.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return found


class Peer:
    """A client by default; with `serves` it expects a client's preface first."""

    def __init__(self, stream: trio.abc.Stream, *, serves: bool = False) -> None:
        self.stream = stream
        self.write = HeaderWriter()
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.pongs = 0
        self.seen: list[hyperframe.frame.Frame] = []
        self.closed = False
        """Whether the other side has closed the connection."""
        self.left = trio.Event()
        """Set when the task of the other side has ended, where the harness runs it."""
        self._buffer = b""
        self._decoder = Decoder()
        self._preface_left = len(frames.PREFACE) if serves else 0

    def allow_header_table(self, size: int) -> None:
        """What the other side may make us remember of its headers; SETTINGS has to tell it."""
        self._decoder.max_allowed_table_size = size

    @property
    def header_table(self) -> int:
        """How much the other side makes us remember."""
        size: int = self._decoder.header_table_size
        return size

    async def send(self, *pieces: bytes) -> None:
        """Writes them in one go; into the void where the other side has closed already."""
        with trio.fail_after(_PATIENCE), contextlib.suppress(trio.BrokenResourceError):
            await self.stream.send_all(b"".join(pieces))

    async def greet(self, settings: Mapping[int, int] | None = None) -> None:
        """What every client says first."""
        await self.send(frames.PREFACE, frames.settings(settings))

    async def close(self) -> None:
        """Closes both directions, as a process that dies does."""
        await trio.aclose_forcefully(self.stream)

    async def until(self, done: Callable[[], bool]) -> None:
        """Reads until `done`; fails if the connection ends before."""
        with trio.fail_after(_PATIENCE):
            while not done():
                assert not self.closed, f"closed after {self.seen}"
                await self._read()

    async def until_closed(self) -> None:
        """Reads until the other side has closed."""
        with trio.fail_after(_PATIENCE):
            while not self.closed:
                await self._read()

    async def until_left(self) -> None:
        """Waits until nothing of the connection is left on the other side."""
        with trio.fail_after(_PATIENCE):
            await self.left.wait()

    async def answer(self, stream_id: int) -> Answer:
        """The whole answer to a call."""
        found = self.answers.setdefault(stream_id, Answer())
        await self.until(lambda: found.ended)
        return found

    async def has_pong(self) -> None:
        """Returns when all that was sent before has been worked off, and the answers are here."""
        await trio.testing.wait_all_tasks_blocked()
        before = self.pongs
        await self.send(frames.ping())
        await self.until(lambda: self.pongs > before)

    async def messages(self, stream_id: int, count: int) -> list[bytes]:
        """The messages of a call, once there are `count`."""
        found = self.answers.setdefault(stream_id, Answer())
        await self.until(lambda: len(found.messages) >= count)
        return found.messages

    async def _read(self) -> None:
        received = b""
        with contextlib.suppress(trio.BrokenResourceError):
            received = bytes(await self.stream.receive_some(65536))
        self.closed = not received
        self._buffer += received
        skipped = self._buffer[: self._preface_left]
        self._preface_left -= len(skipped)
        self._buffer = self._buffer[len(skipped) :]
        for each in self._whole_frames():
            self.seen.append(each)
            self._take(each)

    def _whole_frames(self) -> Iterator[hyperframe.frame.Frame]:
        while len(self._buffer) >= 9:
            view = memoryview(self._buffer)
            found, length = hyperframe.frame.Frame.parse_frame_header(view[:9])
            if len(view) < 9 + length:
                return
            found.parse_body(view[9 : 9 + length])
            self._buffer = self._buffer[9 + length :]
            yield found

    def _take(self, got: hyperframe.frame.Frame) -> None:
        answer = self.answers.setdefault(got.stream_id, Answer())
        match got:
            case hyperframe.frame.HeadersFrame():
                fields = dict(self._decoder.decode(got.data, raw=True))
                answer.headers = answer.headers or fields
                if "END_STREAM" in got.flags:
                    answer.trailers = fields
            case hyperframe.frame.DataFrame():
                answer.body += got.data
            case hyperframe.frame.RstStreamFrame():
                answer.reset = got.error_code
            case hyperframe.frame.GoAwayFrame():
                self.goaway = got.error_code
            case hyperframe.frame.PingFrame() if "ACK" in got.flags:
                self.pongs += 1
        if "END_STREAM" in got.flags:
            answer.ended = True
