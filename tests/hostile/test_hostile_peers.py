"""Whatever a peer does to one connection, every task of it ends and everybody else is served."""

import tracemalloc

import pytest
import trio
from hyperframe.frame import HeadersFrame
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Limits
from tests.hostile import frames
from tests.hostile.peer import Peer
from tests.hostile.service import well_afterwards

INTERNAL, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNIMPLEMENTED = 13, 8, 4, 12
HEADER_TABLE_SIZE = 1
GREETING = frames.PREFACE + frames.settings()


@pytest.mark.parametrize("part", [b"", frames.PREFACE[:10], frames.PREFACE, GREETING[:-1]])
async def test_a_peer_that_sends_too_little_is_closed_after_a_while(
    autojump_clock: MockClock, part: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        await peer.send(part)
        started = trio.current_time()
        await peer.until_closed()
        assert trio.current_time() - started == pytest.approx(DEFAULT_LIMITS.handshake)


async def test_one_byte_a_second_is_too_slow_for_a_greeting(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        for at in range(len(GREETING)):
            if peer.left.is_set():
                break
            await peer.send(GREETING[at : at + 1])
            await trio.sleep(1)  # on the mock clock
        assert peer.left.is_set()


async def test_one_byte_a_second_is_too_slow_for_a_request(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1))
        for each in frames.message(b"0123456789"):
            await peer.send(frames.data(1, bytes([each])))
            await trio.sleep(1)  # on the mock clock
        assert (await peer.answer(1)).status == DEADLINE_EXCEEDED
        await peer.has_pong()


async def test_a_request_in_single_bytes_is_answered(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        for each in GREETING + peer.write.call(1, "Echo", b"hello"):
            await peer.send(bytes([each]))
        assert (await peer.answer(1)).messages == [b"hello"]


async def test_headers_that_end_the_stream_are_answered(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1, end=True))
        assert (await peer.answer(1)).status == INTERNAL
        await peer.has_pong()


@pytest.mark.parametrize(
    ("method", "content_type", "http", "status"),
    [
        ("/no/such", "application/grpc", b"200", UNIMPLEMENTED),
        ("Echo", "text/html", b"415", INTERNAL),
    ],
)
async def test_an_error_is_an_http_answer_and_ends_a_request_that_is_not_complete(
    autojump_clock: MockClock, method: str, content_type: str, http: bytes, status: int
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1, method, ("content-type", content_type)))
        answer = await peer.answer(1)
        await peer.has_pong()
        assert (answer.headers[b":status"], answer.status) == (http, status)
        assert answer.reset == 0, "NO_ERROR: the rest of the request is of no use"


async def test_as_many_connections_are_open_as_allowed_whatever_came_before(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards(Limits(connections=3)) as served:
        for _ in range(3):
            first, second, third = [await served.connect() for _ in range(3)]
            await first.has_pong()
            await second.has_pong()
            await third.until_closed()
            for peer in (first, second):
                await served.leave(peer)


async def test_trailers_of_a_request_are_ignored(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        request = peer.write.request(1), frames.data(1, frames.message(b"hello"))
        await peer.send(*request, peer.write.headers(1, [("x-checksum", "1")], end=True))
        assert (await peer.answer(1)).messages == [b"hello"]


@pytest.mark.parametrize("late", [frames.reset(1), frames.window_update(1, 9)])
async def test_late_frames_for_an_answered_call_are_ignored(
    autojump_clock: MockClock, late: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Echo"), peer.write.call(3, "Watch"))
        await peer.answer(1)
        # h2 forgets a closed stream when the next one opens: grpcio's late window updates, which
        # RFC 9113 (5.1) wants ignored, come before and after that.
        for stream_id in (5, 7, 9):
            await peer.send(late, peer.write.call(stream_id, "Echo", b"hello"))
            assert (await peer.answer(stream_id)).messages == [b"hello"]
        served.service.updates.post(b"news")
        assert await peer.messages(3, 2) == [b"before", b"news"]


async def test_data_on_a_closed_stream_affects_at_most_its_own_connection(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        for stream_id in (1, 3, 5):
            await peer.send(peer.write.call(stream_id, "Echo"))
            await peer.answer(stream_id)
        await peer.send(frames.data(1, b"x"), peer.write.call(7, "Watch"))
        await wait_all_tasks_blocked()


async def test_data_after_the_end_affects_no_other_call(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Hang"), peer.write.call(3, "Watch"))
        await peer.messages(3, 1)
        await peer.send(frames.data(1, b"more"), peer.write.call(5, "Echo", b"hello"))
        assert (await peer.answer(5)).messages == [b"hello"]
        assert peer.answers[1].reset is not None
        served.service.updates.post(b"news")
        assert await peer.messages(3, 2) == [b"before", b"news"]


async def test_data_on_a_stream_that_was_reset_is_dropped_and_its_window_returned(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1), frames.reset(1))
        for _ in range(DEFAULT_LIMITS.connection_window // 16384 + 1):
            await peer.send(frames.data(1, bytes(16384)))
        await peer.send(peer.write.call(3, "Echo", b"hello"))
        assert (await peer.answer(3)).messages == [b"hello"]


@pytest.mark.parametrize("length", [2**30, 2**32 - 1])
async def test_a_gigabyte_length_prefix_is_refused_at_once(
    autojump_clock: MockClock, length: int
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1))
        await peer.send(frames.data(1, frames.message(b"x", length=length)))
        assert (await peer.answer(1)).status == RESOURCE_EXHAUSTED
        await peer.has_pong()


@pytest.mark.parametrize("flag", [1, 2, 255])
async def test_a_compressed_message_is_refused(autojump_clock: MockClock, flag: int) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        body = frames.message(b"hello", compressed=flag)
        await peer.send(peer.write.request(1), frames.data(1, body, end=True))
        assert (await peer.answer(1)).status == INTERNAL


@pytest.mark.parametrize("body", [b"\x00", frames.message(b"hello")[:-1]])
async def test_a_message_that_is_never_complete_is_internal(
    autojump_clock: MockClock, body: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1), frames.data(1, body, end=True))
        assert (await peer.answer(1)).status == INTERNAL


async def test_rapid_resets_leave_no_task(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.has_pong()
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for stream_id in range(1, 4001, 2):
            await peer.send(peer.write.request(stream_id, "Hang"), frames.reset(stream_id))
        await peer.has_pong()
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_more_calls_than_allowed_end_only_the_offenders_connection(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards(Limits(calls=4)) as served:
        peer = await served.connect()
        for stream_id in range(1, 13, 2):
            await peer.send(peer.write.call(stream_id, "Hang"))
        await peer.until_closed()


async def test_a_half_closed_socket_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Watch"))
        await peer.messages(1, 1)
        assert isinstance(peer.stream, trio.StapledStream)
        await peer.stream.send_eof()
        await peer.until_closed()
        await peer.until_left()


async def test_a_peer_that_takes_no_writes_any_more_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Watch"))
        await peer.messages(1, 1)
        assert isinstance(peer.stream, trio.StapledStream)
        await peer.stream.receive_stream.aclose()
        served.service.updates.post(b"news")
        await peer.until_left()


async def flood(peer: Peer, piece: bytes, times: int) -> None:
    """Sends on, until the server has had enough."""
    for _ in range(times):
        if peer.left.is_set():
            break
        await peer.send(piece)


@pytest.mark.parametrize("piece", [frames.ping(), frames.settings()], ids=["PING", "SETTINGS"])
async def test_a_flood_from_a_peer_that_never_reads_ends_its_connection(
    autojump_clock: MockClock, piece: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(unread=True)
        await flood(peer, piece * 1000, 1000)
        await peer.until_left()


async def test_a_peer_that_never_reads_and_then_leaves_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect(unread=True)
        with trio.move_on_after(1):  # by then the server has stopped reading
            await flood(peer, frames.ping() * 1000, 1000)
        await peer.close()
        await peer.until_left()


async def test_unknown_frames_by_the_thousand_are_ignored(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        for stream_id in (0, 1):
            await peer.send(frames.frame(0xEE, 0xFF, stream_id) * 5000)
            await peer.send(frames.frame(0xEE, 0xFF, stream_id, b"text") * 5000)
        await peer.send(peer.write.call(1, "Echo", b"hello"))
        assert (await peer.answer(1)).messages == [b"hello"]


SMALLEST = {
    "empty": frames.data(1),
    "padding only": frames.frame(frames.DATA, frames.PADDED, 1, b"\0"),
    "one byte": frames.data(1, b"x"),
}


@pytest.mark.parametrize("piece", SMALLEST.values(), ids=SMALLEST.keys())
async def test_data_in_the_smallest_pieces_takes_no_more_memory_than_in_large_ones(
    autojump_clock: MockClock, piece: bytes
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        endless = frames.message(b"", length=DEFAULT_LIMITS.message_size)
        request = frames.data(1, frames.message(b"") + endless)
        await peer.send(peer.write.request(1, "Watch"), request)
        await peer.has_pong()
        tracemalloc.start()
        try:
            for _ in range(10):
                await peer.send(piece * 1000)
                await peer.has_pong()
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert grown < 250_000, "25 bytes for each of the 10,000"


async def test_endless_settings_end_the_connection_without_using_memory(
    autojump_clock: MockClock,
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(frames.settings(dict.fromkeys(range(100, 300), 1)))
        await peer.until_closed()
        assert peer.goaway == 11, "ENHANCE_YOUR_CALM"


async def test_endless_empty_messages_end_only_their_call(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1), frames.data(1, frames.message(b"") * 3000))
        assert (await peer.answer(1)).status == RESOURCE_EXHAUSTED
        await peer.send(peer.write.call(3, "Echo", b"hello"))
        assert (await peer.answer(3)).messages == [b"hello"]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("size", [0, 100, 4095, 4096])
async def test_a_peer_that_remembers_fewer_headers_can_read_the_answers(
    autojump_clock: MockClock, size: int, times: int
) -> None:
    """Its reader refuses headers before which it was not told that our table is as small."""
    async with well_afterwards() as served:
        peer = await served.connect(greets=False)
        peer.allow_header_table(size)
        await peer.send(frames.PREFACE, frames.settings({HEADER_TABLE_SIZE: size}) * times)
        for stream_id in (1, 3):
            await peer.send(peer.write.call(stream_id, "Echo", b"hello"))
            assert (await peer.answer(stream_id)).messages == [b"hello"]
        assert peer.header_table == size


@pytest.mark.parametrize("times", [1, 2000])
async def test_a_peer_does_not_choose_how_much_we_remember_of_our_own_headers(
    autojump_clock: MockClock, times: int
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        allowed = 2**31 - 1
        peer.allow_header_table(allowed)
        await peer.send(frames.settings({HEADER_TABLE_SIZE: allowed}) * times)
        await peer.send(peer.write.call(1, "/no/" + "x" * 9000))
        answer = await peer.answer(1)
        assert answer.status == UNIMPLEMENTED
        assert len(answer.text) < 300
        assert peer.header_table == 4096
        blocks = [len(each.data) for each in peer.seen if isinstance(each, HeadersFrame)]
        assert max(blocks) < 1000, "not a change of the table for each SETTINGS"
