"""Answers go out as fast as the peer's windows open, and what comes in is bounded by ours."""

import pytest
import trio
from hyperframe.frame import SettingsFrame, WindowUpdateFrame
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Limits
from tests.hostile import frames
from tests.hostile.service import well_afterwards

SMALL = {frames.INITIAL_WINDOW_SIZE: 100}
RESOURCE_EXHAUSTED = 8


async def test_an_answer_larger_than_the_window_is_sent_as_it_opens(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet(SMALL)
        await peer.send(peer.write.call(1, "Grow", b"1000"))
        for got in range(100, 1005, 100):
            await peer.has_pong()
            assert len(peer.answers[1].body) == got
            await peer.send(frames.window_update(1, 100))
        answer = await peer.answer(1)
        assert (answer.status, answer.messages) == (0, [b"x" * 1000])


async def test_an_answer_waits_for_the_connections_window_too(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 2**20})
        await peer.send(peer.write.call(1, "Grow", b"100000"))
        await peer.has_pong()
        assert len(peer.answers[1].body) == 65535, "what RFC 9113 grants a connection at first"
        await peer.send(frames.window_update(0, 2**20))
        assert (await peer.answer(1)).messages == [b"x" * 100_000]


async def test_a_window_opened_by_settings_counts(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 0})
        await peer.send(peer.write.call(1, "Echo", b"hello"))
        await peer.has_pong()
        assert peer.answers[1].body == b""
        await peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 1000}))
        assert (await peer.answer(1)).messages == [b"hello"]


async def test_a_window_that_turns_negative_holds_the_answer(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet(SMALL)
        await peer.send(peer.write.call(1, "Grow", b"200"))
        await peer.has_pong()
        await peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
        await peer.send(frames.window_update(1, 100))
        await peer.has_pong()
        assert len(peer.answers[1].body) == 100
        await peer.send(frames.window_update(1, 105))
        assert (await peer.answer(1)).messages == [b"x" * 200]


async def test_frames_are_not_longer_than_the_peer_accepts(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Grow", b"40000"))
        await peer.answer(1)
        assert max(each.body_len for each in peer.seen) == 16384


@pytest.mark.parametrize("method", ["Grow", "Watch"])
async def test_a_window_kept_closed_ends_the_call(autojump_clock: MockClock, method: str) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 0})
        await peer.send(peer.write.call(1, method, b"1000"))
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await peer.answer(1)
        assert trio.current_time() - started == pytest.approx(DEFAULT_LIMITS.unread)
        assert served.service.running == 1


async def test_a_closed_window_of_one_call_delays_no_other(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet(SMALL)
        await peer.send(peer.write.call(1, "Grow", b"1000"), peer.write.call(3, "Echo", b"hello"))
        assert (await peer.answer(3)).messages == [b"hello"]


@pytest.mark.parametrize("how", [frames.reset(1), frames.goaway()], ids=["RST_STREAM", "GOAWAY"])
async def test_a_send_that_waits_for_a_window_ends_with_its_call(
    autojump_clock: MockClock, how: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 0})
        await peer.send(peer.write.call(1, "Watch"))
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await peer.send(how)
        await wait_all_tasks_blocked()
        assert served.service.running == 1
        assert trio.current_time() == started


async def test_a_peer_that_never_reads_ends_with_its_streams(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(unread=True, greets=False)
        async with trio.open_nursery() as nursery:
            # The server says its own greeting first, and nobody reads that.
            nursery.start_soon(peer.send, frames.PREFACE, frames.settings())
        await peer.send(peer.write.call(1, "Watch"))
        await peer.until_left()
        assert served.service.running == 1


async def test_a_peer_that_reads_no_answer_is_not_read_either(autojump_clock: MockClock) -> None:
    async with well_afterwards(Limits(unsent=1000)) as served:
        peer = await served.connect(unread=True, greets=False)
        with trio.move_on_after(5) as waiting:
            await peer.send(frames.PREFACE, frames.settings())
            for _ in range(100):
                await peer.send(*[frames.ping()] * 100)
        assert waiting.cancelled_caught, "answers to 10,000 pings are queued"


async def test_a_slow_reader_gets_the_latest_update_not_the_backlog(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 5 + len("before")})
        await peer.send(peer.write.call(1, "Watch"))
        await peer.messages(1, 1)
        for each in range(1000):
            served.service.updates.post(b"%06d" % each)
            await wait_all_tasks_blocked()
        await peer.send(frames.window_update(1, 10_000))
        assert await peer.messages(1, 3) == [b"before", b"000000", b"000999"]


async def test_many_requests_in_a_row_never_use_up_our_window(autojump_clock: MockClock) -> None:
    limits = Limits(message_size=10_000, connection_window=70_000)
    async with well_afterwards(limits) as served:
        peer = await served.connect()
        for stream_id in range(1, 101, 2):
            await peer.send(peer.write.call(stream_id, "Echo", b"x" * 9_000))
            await peer.send(frames.window_update(0, 10_000))
            assert (await peer.answer(stream_id)).status == 0


async def test_refused_requests_never_use_up_our_window(autojump_clock: MockClock) -> None:
    limits = Limits(message_size=10_000, connection_window=70_000)
    async with well_afterwards(limits) as served:
        peer = await served.connect()
        for stream_id in range(1, 201, 2):
            body = frames.message(b"x" * 9_000, length=2**30)
            rest = frames.data(stream_id, bytes(1_000))  # arrives after the refusal
            await peer.send(peer.write.request(stream_id), frames.data(stream_id, body), rest)
            assert (await peer.answer(stream_id)).status == RESOURCE_EXHAUSTED
        await peer.send(peer.write.call(201, "Echo", b"x" * 9_000))
        assert (await peer.answer(201)).status == 0


async def test_padding_never_uses_up_our_window(autojump_clock: MockClock) -> None:
    limits = Limits(message_size=10_000, connection_window=70_000)
    async with well_afterwards(limits) as served:
        peer = await served.connect()
        padded = bytes([255]) + frames.message(b"hello") + bytes(255)
        for stream_id in range(1, 601, 2):
            frame = frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, stream_id, padded)
            await peer.send(peer.write.request(stream_id), frame)
            assert (await peer.answer(stream_id)).messages == [b"hello"]


async def test_our_side_greets_without_waiting_for_the_peer(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.until(lambda: len(peer.seen) == 2)
        greeting, window = peer.seen
        assert isinstance(greeting, SettingsFrame)
        wanted = {
            SettingsFrame.ENABLE_PUSH: 0,
            SettingsFrame.MAX_CONCURRENT_STREAMS: DEFAULT_LIMITS.calls,
            SettingsFrame.INITIAL_WINDOW_SIZE: DEFAULT_LIMITS.message_size + 5,
            SettingsFrame.MAX_FRAME_SIZE: DEFAULT_LIMITS.frame_size,
            SettingsFrame.MAX_HEADER_LIST_SIZE: DEFAULT_LIMITS.header_list_size,
        }
        assert wanted.items() <= greeting.settings.items()
        assert isinstance(window, WindowUpdateFrame)
        assert window.window_increment == DEFAULT_LIMITS.connection_window - 65535


async def test_updates_wait_for_a_peer_that_leaves_too_much_unread(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards(Limits(unsent=2_000, unread=1e5)) as served:
        peer = await served.connect(unread=True, greets=False)
        wide = frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31 - 1})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, frames.PREFACE, wide, frames.window_update(0, 2**30))
            await peer.until(lambda: bool(peer.seen))
        await peer.send(peer.write.call(1, "Watch"))
        for each in range(100):
            served.service.updates.post(b"%04d" % each * 50)
            await wait_all_tasks_blocked()
        await peer.messages(1, 1)
        found = peer.answers[1]
        await peer.until(lambda: found.messages[-1].startswith(b"0099"))
        assert 5 < len(found.messages) < 20


async def test_a_peer_that_overruns_our_window_is_closed(autojump_clock: MockClock) -> None:
    async with well_afterwards(Limits(message_size=10_000)) as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1, "Watch"))
        await peer.send(frames.data(1, bytes(9_000)), frames.data(1, bytes(9_000)))
        await peer.until_closed()
        assert peer.goaway == 3, "FLOW_CONTROL_ERROR"
