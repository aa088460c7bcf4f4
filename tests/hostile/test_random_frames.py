"""Whatever frames come, in whatever order and portions: every task ends, and the next call works."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from purerpc import ProtocolError, RpcFailedError
from trio.testing import MockClock, memory_stream_pair

from biren_plugin.wire.unix_grpc import CallEnded, Channel, Limits, with_channel
from tests.hostile import frames
from tests.hostile.frames import Header, HeaderWriter
from tests.hostile.peer import Peer
from tests.hostile.service import Raw, stub, well_afterwards
from tests.support.examples import examples

LIMITS = Limits(message_size=2000, connection_window=70_000, calls=4, unsent=500)

stream_ids = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 9, 2, 2**31 - 1, 2**31])
bodies = st.one_of(st.binary(max_size=40), st.just(bytes(3000)))
timeouts: st.SearchStrategy[list[Header]] = st.sampled_from([[], [("grpc-timeout", "1m")]])


@attrs.frozen
class Opening:
    """A header list; encoded when its turn comes, for HPACK counts them."""

    stream_id: int
    headers: Sequence[Header]
    end: bool


@attrs.frozen
class Pause:
    """So long the peer says nothing. Seconds."""

    seconds: float


def request(stream_id: int, method: str, extra: list[Header], *, end: bool) -> Opening:
    fields: list[Header] = [
        (":method", "POST"),
        (":path", f"/test.Service/{method}"),
        ("content-type", "application/grpc"),
        *extra,
    ]
    return Opening(stream_id, fields, end)


methods = st.sampled_from(["Echo", "Typed", "Grow", "Hang", "Watch", "Nothing"])
messages = st.one_of(
    bodies.map(frames.message),
    st.builds(frames.message, bodies, compressed=st.integers(0, 255)),
    st.builds(frames.message, bodies, length=st.integers(0, 2**32 - 1)),
    st.sampled_from([frames.message(b"0"), frames.message(b"1999"), frames.message(b"2001")]),
)
setting_values = st.dictionaries(
    st.integers(0, 8),
    st.sampled_from([0, 1, 100, 16384, 2**24 - 1, 2**31 - 1, 2**32 - 1]),
    max_size=3,
)
valid = st.one_of(
    st.builds(frames.data, stream_ids, st.one_of(messages, bodies), end=st.booleans()),
    st.builds(frames.reset, stream_ids, st.integers(0, 20)),
    st.builds(frames.window_update, stream_ids, st.sampled_from([0, 1, 1000, 2**31 - 1])),
    st.builds(frames.settings, setting_values, st.sampled_from([0, 0, 1])),
    st.builds(frames.ping, st.binary(min_size=7, max_size=8)),
    st.builds(frames.goaway, stream_ids, st.integers(0, 20)),
)
random_frames = st.builds(frames.frame, st.integers(0, 12), st.integers(0, 255), stream_ids, bodies)
openings = st.one_of(
    st.builds(request, stream_ids, methods, timeouts, end=st.booleans()),
    st.builds(
        Opening,
        stream_ids,
        st.lists(
            st.tuples(
                st.sampled_from([":status", "grpc-status", "content-type", ":path", "x", "te"]),
                st.sampled_from(["", "0", "13", "99", "200", "application/grpc", "9" * 5000]),
            ),
            max_size=4,
        ),
        st.booleans(),
    ),
)
whole_calls = st.tuples(st.sampled_from([1, 3, 5, 7]), methods, messages).map(
    lambda call: [
        request(call[0], call[1], [], end=False),
        frames.data(call[0], call[2], end=True),
    ]
)
truncated = st.tuples(st.one_of(valid, random_frames), st.integers(0, 12)).map(
    lambda cut: cut[0][: cut[1]]
)
single = st.one_of(
    openings,
    openings,
    valid,
    valid,
    random_frames,
    truncated,
    st.binary(max_size=30),
    st.builds(Pause, st.sampled_from([0.0, 0.5, 15.0])),
).map(lambda step: [step])
Step = bytes | Opening | Pause
scripts: st.SearchStrategy[list[list[Step]]] = st.lists(st.one_of(whole_calls, single), max_size=12)
endings = st.sampled_from(["close", "half-close", "silence"])


async def play(peer: Peer, script: list[list[Step]], *, together: bool, ending: str) -> None:
    """Sends a script: each step by itself, or all that lies between two pauses in one write."""
    writer = HeaderWriter()
    waiting = b""
    for step in (step for part in script for step in part):
        match step:
            case Pause():
                await peer.send(waiting)
                waiting = b""
                await trio.sleep(step.seconds)  # on the mock clock
            case Opening():
                waiting += writer.headers(step.stream_id, step.headers, end=step.end)
            case bytes():
                waiting += step
        if not together:
            await peer.send(waiting)
            waiting = b""
            await trio.lowlevel.checkpoint()
    await peer.send(waiting)
    if ending == "silence":
        await trio.sleep(100)  # on the mock clock
    if ending == "half-close":
        assert isinstance(peer.stream, trio.StapledStream)
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.stream.send_eof()
    else:
        await peer.close()
    await peer.until_left()


def run(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


THOROUGH = settings(examples(150), suppress_health_check=[HealthCheck.too_slow])


@THOROUGH
@given(scripts, st.booleans(), st.booleans(), st.booleans(), endings)
def test_a_server_survives_any_client(
    script: list[list[Step]], greets: bool, together: bool, unread: bool, ending: str
) -> None:
    if unread and ending == "half-close":
        ending = "close"  # a lock-step pair has no half

    async def main() -> None:
        async with well_afterwards(LIMITS) as served:
            served.service.largest = LIMITS.message_size
            peer = await served.connect(greets=False, unread=unread)
            greeting: list[list[Step]] = [[frames.PREFACE + frames.settings()]] if greets else []
            await play(peer, greeting + script, together=together, ending=ending)

    run(main)


@THOROUGH
@given(scripts, st.booleans(), st.floats(0, 20))
def test_a_server_may_be_cancelled_at_any_time(
    script: list[list[Step]], together: bool, after: float
) -> None:
    async def main() -> None:
        async with well_afterwards(LIMITS) as served:
            served.service.largest = LIMITS.message_size
            near, far = memory_stream_pair()
            peer = Peer(near)
            greeting: list[list[Step]] = [[frames.PREFACE + frames.settings()]]

            async def handle() -> None:
                with trio.move_on_after(after):
                    await served.server.handle(far)
                peer.left.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle)
                await play(peer, greeting + script, together=together, ending="silence")

    run(main)


@THOROUGH
@given(scripts, st.booleans(), st.booleans(), st.booleans(), endings)
def test_a_client_survives_any_server(
    script: list[list[Step]], greets: bool, together: bool, gives_up: bool, ending: str
) -> None:
    ended = []

    async def call(channel: Channel, method: str) -> None:
        answer: Any = stub(channel, method)(Raw(b"hello"))
        try:
            with trio.move_on_after(0.2 if gives_up else 1e6):
                await answer
        except (RpcFailedError, CallEnded, ProtocolError, DecodeError) as error:
            ended.append(error)
        else:
            ended.append(None)

    async def use(channel: Channel) -> None:
        async with trio.open_nursery() as nursery:
            for method in ("Echo", "Grow", "Typed", "Hang"):
                nursery.start_soon(call, channel, method)

    async def main() -> None:
        near, far = memory_stream_pair()
        peer = Peer(near, serves=True)
        greeting: list[list[Step]] = [[frames.settings()]] if greets else []
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def client() -> None:
            await with_channel(far, use, limits=LIMITS)
            peer.left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await play(peer, greeting + script, together=together, ending=ending)
        assert len(ended) == 4
        assert trio.lowlevel.current_statistics().tasks_living == tasks

    run(main)
