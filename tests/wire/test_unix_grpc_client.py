"""A call of ours always ends: with the answer, with the server's status, or with what broke it."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from purerpc import RpcFailedError
from purerpc.grpclib.exceptions import MessageTooLargeError, ProtocolError
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from biren_plugin.wire.device_plugin import PluginClient
from biren_plugin.wire.messages import ListedDevice
from biren_plugin.wire.pod_resources import ElementCutter
from biren_plugin.wire.unix_grpc import (
    DEFAULT_LIMITS,
    CallEnded,
    Channel,
    ConnectionEnded,
    Limits,
    Server,
    take_answer,
    with_channel,
)
from tests.hostile import frames
from tests.hostile.frames import Header
from tests.hostile.peer import Peer
from tests.hostile.service import Raw, Service, stub

RESPONSE: list[Header] = [(":status", "200"), ("content-type", "application/grpc")]
DONE: list[Header] = [("grpc-status", "0")]
Use = Callable[[Channel], Awaitable[Any]]


@contextlib.asynccontextmanager
async def dialled(use: Use, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Peer]:
    """A server by hand, to which `use` talks; checks that nothing of the client is left after."""
    near, far = memory_stream_pair()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        nursery.start_soon(with_channel_to, far, use, limits)
        peer = Peer(near, serves=True)
        await peer.send(frames.settings())
        yield peer
        await peer.until_closed()
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def with_channel_to(stream: trio.abc.Stream, use: Use, limits: Limits) -> None:
    await with_channel(stream, use, limits=limits)


async def has_request(peer: Peer, stream_id: int = 1) -> None:
    await peer.until(lambda: stream_id in peer.answers and peer.answers[stream_id].ended)


async def echo(channel: Channel) -> Any:
    return await stub(channel, "Echo")(Raw(b"hello"))


def fails_with(error: type[Exception], match: str, call: Use = echo) -> Use:
    async def use(channel: Channel) -> None:
        with pytest.raises(error, match=match):
            await call(channel)

    return use


def lists_of(channel: Channel) -> AsyncGenerator[list[ListedDevice], None]:
    return PluginClient(channel).lists()


async def watch(channel: Channel) -> list[bytes]:
    async with contextlib.aclosing(stub(channel, "Watch")(Raw(b""))) as updates:
        return [each.data async for each in updates]


async def test_a_request_says_what_grpc_asks_for(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        assert (await echo(channel)).data == b"world"

    async with dialled(use) as peer:
        await has_request(peer)
        asked = peer.answers[1]
        assert asked.headers[b":method"] == b"POST"
        assert asked.headers[b":path"] == b"/test.Service/Echo"
        assert asked.headers[b"te"] == b"trailers"
        assert asked.headers[b"content-type"].startswith(b"application/grpc")
        assert asked.messages == [b"hello"]
        await peer.send(
            peer.write.headers(1, RESPONSE),
            frames.data(1, frames.message(b"world")),
            peer.write.headers(1, DONE, end=True),
        )


async def test_our_own_server_answers_our_own_client(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    server = Server([Service()], DEFAULT_LIMITS, lambda error: None)

    async def use(channel: Channel) -> bytes:
        with pytest.raises(RpcFailedError, match="INTERNAL"):
            await stub(channel, "Fail")(Raw(b""))
        answer: Raw = await stub(channel, "Grow")(Raw(b"500000"))
        return answer.data

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, far)
        assert await with_channel(near, use) == b"x" * 500_000


async def test_a_stream_that_ends_with_an_error_raises_it(autojump_clock: MockClock) -> None:
    async def read(channel: Channel) -> None:
        async with contextlib.aclosing(lists_of(channel)) as lists:
            async for _ in lists:
                pass

    async with dialled(fails_with(RpcFailedError, "UNAVAILABLE: going away", read)) as peer:
        await has_request(peer)
        status: list[Header] = [("grpc-status", "14"), ("grpc-message", "going away")]
        await peer.send(peer.write.headers(1, RESPONSE), peer.write.headers(1, status, end=True))


async def test_a_long_stream_never_uses_up_our_window(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        assert [len(each) for each in await watch(channel)] == [9_000] * 100

    limits = Limits(message_size=10_000, connection_window=70_000)
    async with dialled(use, limits) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, RESPONSE))
        for _ in range(100):
            await peer.send(frames.data(1, frames.message(bytes(9_000))))
            await wait_all_tasks_blocked()
        await peer.send(peer.write.headers(1, DONE, end=True))


async def test_late_frames_for_a_call_that_is_over_are_ignored(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        for _ in range(2):
            assert (await echo(channel)).data == b"world"

    async with dialled(use) as peer:
        for stream_id in (1, 3):
            await has_request(peer, stream_id)
            await peer.send(
                frames.window_update(1, 9) if stream_id == 3 else b"",
                peer.write.headers(stream_id, RESPONSE),
                frames.data(stream_id, frames.message(b"world")),
                peer.write.headers(stream_id, DONE, end=True),
            )


async def test_a_connection_that_the_peer_resets_ends_the_call(autojump_clock: MockClock) -> None:
    ours, theirs = trio.socket.socketpair()

    async def leave_in_the_middle() -> None:
        await theirs.recv(1)
        await wait_all_tasks_blocked()
        theirs.close()  # with bytes unread, which is a reset

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_in_the_middle)
        with trio.fail_after(60):
            use = fails_with(ConnectionEnded, "the peer broke the connection")
            await with_channel(trio.SocketStream(ours), use)


@pytest.mark.parametrize("reset", [b"", frames.reset(1, frames.NO_ERROR)])
@pytest.mark.parametrize("trailers_only", [True, False])
async def test_an_error_status_is_raised_with_its_text(
    autojump_clock: MockClock, *, trailers_only: bool, reset: bytes
) -> None:
    status: list[Header] = [("grpc-status", "9"), ("grpc-message", "not yet%2C try again")]
    use = fails_with(RpcFailedError, "FAILED_PRECONDITION: not yet, try again")
    async with dialled(use) as peer:
        await has_request(peer)
        opening = b"" if trailers_only else peer.write.headers(1, RESPONSE)
        status = [*RESPONSE, *status] if trailers_only else status
        # grpcio and grpc-go send such a reset when they end a call before the client has.
        await peer.send(opening + peer.write.headers(1, status, end=True) + reset)


@pytest.mark.parametrize("headers", [RESPONSE, [(":status", "503"), ("content-type", "text/html")]])
async def test_an_answer_without_a_status_is_unknown(
    autojump_clock: MockClock, headers: list[Header]
) -> None:
    async with dialled(fails_with(RpcFailedError, "UNKNOWN")) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, headers, end=True))


async def test_an_answer_that_ends_with_data_has_no_status(autojump_clock: MockClock) -> None:
    async with dialled(fails_with(RpcFailedError, "UNKNOWN")) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, RESPONSE), frames.data(1, b"", end=True))


async def test_an_unknown_status_ends_only_its_call(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        await fails_with(RpcFailedError, "UNKNOWN")(channel)
        await fails_with(RpcFailedError, "UNAVAILABLE")(channel)

    async with dialled(use) as peer:
        await has_request(peer)
        odd: list[Header] = [*RESPONSE, ("grpc-status", "9" * 5000)]
        await peer.send(peer.write.headers(1, odd, end=True))
        await has_request(peer, 3)
        await peer.send(peer.write.headers(3, [*RESPONSE, ("grpc-status", "14")], end=True))


@pytest.mark.parametrize("answers", [0, 2])
async def test_a_unary_answer_has_one_message(autojump_clock: MockClock, answers: int) -> None:
    async def use(channel: Channel) -> None:
        try:
            await echo(channel)
        except (ProtocolError, RpcFailedError):
            return
        pytest.fail("no error")

    async with dialled(use) as peer:
        await has_request(peer)
        body = frames.message(b"world") * answers
        await peer.send(peer.write.headers(1, RESPONSE), frames.data(1, body))
        await peer.send(peer.write.headers(1, [("grpc-status", "0")], end=True))


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        (frames.goaway(), "GOAWAY"),
        (frames.reset(1), "reset"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "broke the protocol"),
        (frames.data(1, bytes(20_000)), "20000"),
    ],
)
async def test_what_the_server_does_mid_call_ends_the_call(
    autojump_clock: MockClock, sent: bytes, match: str
) -> None:
    async with dialled(fails_with(CallEnded, match)) as peer:
        await has_request(peer)
        await peer.send(sent)


async def test_a_server_that_closes_mid_call_ends_every_call(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with(ConnectionEnded, "closed"), channel)
            nursery.start_soon(fails_with(ConnectionEnded, "closed", watch), channel)
        with pytest.raises(ConnectionEnded):
            await echo(channel)

    async with dialled(use) as peer:
        await has_request(peer, 1)
        await has_request(peer, 3)
        await peer.send(peer.write.headers(1, RESPONSE))
        await peer.close()
        peer.closed = True


async def test_a_reset_call_leaves_its_siblings_alone(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        await fails_with(CallEnded, "reset")(channel)
        assert (await echo(channel)).data == b"world"

    async with dialled(use) as peer:
        await has_request(peer)
        await peer.send(frames.reset(1))
        await has_request(peer, 3)
        body = frames.data(3, frames.message(b"world"))
        await peer.send(
            peer.write.headers(3, RESPONSE), body, peer.write.headers(3, DONE, end=True)
        )


async def test_an_answer_too_large_ends_its_call_and_stops_the_server(
    autojump_clock: MockClock,
) -> None:
    async def use(channel: Channel) -> None:
        await fails_with(MessageTooLargeError, "1001")(channel)
        await trio.sleep(5)

    async with dialled(use, Limits(message_size=1000)) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, RESPONSE))
        await peer.send(frames.data(1, frames.message(b"", length=1001)))
        await peer.until(lambda: peer.answers[1].reset is not None)


@pytest.mark.parametrize("call", [echo, watch])
async def test_a_caller_who_gives_up_resets_the_call(autojump_clock: MockClock, call: Use) -> None:
    async def use(channel: Channel) -> None:
        with pytest.raises(trio.TooSlowError), trio.fail_after(5):
            await call(channel)
        await echo(channel)

    async with dialled(use) as peer:
        await has_request(peer)
        await peer.until(lambda: peer.answers[1].reset is not None)
        assert peer.answers[1].reset == frames.CANCEL
        await has_request(peer, 3)
        body = frames.data(3, frames.message(b"world"))
        await peer.send(
            peer.write.headers(3, RESPONSE), body, peer.write.headers(3, DONE, end=True)
        )


async def test_a_caller_who_gives_up_while_sending_resets_the_call(
    autojump_clock: MockClock,
) -> None:
    async def use(channel: Channel) -> None:
        with trio.move_on_after(5) as scope:
            await stub(channel, "Echo")(Raw(b"x" * 100_000))
        assert scope.cancelled_caught
        await trio.sleep(5)

    async with dialled(use) as peer:
        await peer.until(
            lambda: len(peer.answers[1].body) == 65_535 if 1 in peer.answers else False
        )
        await peer.until(lambda: peer.answers[1].reset is not None)


async def test_a_reader_who_leaves_a_stream_resets_it(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        # Not the bare stub: an outer generator of purerpc's keeps an inner one, and closing the one
        # does not close the other.
        async with contextlib.aclosing(lists_of(channel)) as lists:
            async for each in lists:
                assert each == []
                break
        await trio.sleep(5)

    async with dialled(use) as peer:
        await has_request(peer)
        body = frames.data(1, frames.message(b""))
        await peer.send(peer.write.headers(1, RESPONSE), body)
        await peer.until(lambda: peer.answers[1].reset is not None)


async def test_the_users_exception_comes_out_unchanged(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        raise KeyError("mine")

    near, far = memory_stream_pair()
    with pytest.raises(KeyError, match="mine"):
        await with_channel(far, use)
    peer = Peer(near, serves=True)
    await peer.until_closed()


async def test_a_silent_server_is_abandoned(autojump_clock: MockClock) -> None:
    _near, far = memory_stream_pair()
    started = trio.current_time()
    with trio.fail_after(1e6), pytest.raises(ConnectionEnded, match="SETTINGS"):
        await with_channel(far, echo)
    assert trio.current_time() - started == pytest.approx(DEFAULT_LIMITS.handshake)


async def test_a_cancelled_user_closes_the_connection(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    with trio.move_on_after(1) as scope:
        await with_channel(far, echo)
    assert scope.cancelled_caught
    await Peer(near, serves=True).until_closed()


async def test_an_answer_that_no_one_can_read_ends_the_call(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        with pytest.raises(ProtocolError, match="unreadable answer"):
            await PluginClient(channel).options()
        await trio.sleep(5)

    async with dialled(use) as peer:
        await has_request(peer)
        truncated = frames.data(1, frames.message(b"\x0a\x10truncated"))
        await peer.send(peer.write.headers(1, RESPONSE), truncated)
        await peer.until(lambda: peer.answers[1].reset is not None)


async def test_a_burst_of_answers_is_read_whole(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        assert len(await watch(channel)) == 1000

    async with dialled(use) as peer:
        await has_request(peer)
        burst = frames.data(1, frames.message(b"") * 1000)
        end = peer.write.headers(1, [("grpc-status", "0")], end=True)
        await peer.send(peer.write.headers(1, RESPONSE) + burst + end)


async def test_a_request_that_waits_for_a_window_ends_with_its_call(
    autojump_clock: MockClock,
) -> None:
    async def ask_much(channel: Channel) -> Any:
        return await stub(channel, "Echo")(Raw(b"x" * 100_000))

    async with dialled(fails_with(CallEnded, "reset", ask_much)) as peer:
        await peer.until(lambda: 1 in peer.answers and len(peer.answers[1].body) == 65_535)
        await peer.send(frames.reset(1))
    assert trio.current_time() == 0, "it waited for a window that never comes"


async def test_the_parts_of_an_answer_are_taken_as_they_arrive(autojump_clock: MockClock) -> None:
    parts: list[bytes] = []

    async def use(channel: Channel) -> None:
        await take_answer(stub(channel, "Echo"), Raw(b"hello"), parts.append)

    async with dialled(use) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, RESPONSE))
        body = frames.message(b"one two three")
        pieces = (body[:3], body[3:9], body[9:12], body[12:])  # the first one is within the prefix
        for piece, taken in zip(pieces, range(4), strict=True):
            await peer.send(frames.data(1, piece))
            await wait_all_tasks_blocked()
            assert len(parts) == taken
        await peer.send(peer.write.headers(1, DONE, end=True))
    assert parts == [b"one ", b"two", b" three"]


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "ended before its message"),
        (b"\0\0", "ended before its message"),
        (frames.message(b"\x0a\x05wor", length=7), "ended before its message"),
        (frames.message(b"world") * 2, "more than one message"),
        (frames.message(b"world", compressed=1), "compressed"),
        (frames.message(b"", length=2 * 1024**2), "2097152"),
        (frames.message(b"\x0b"), "unreadable answer: wire type 3"),
    ],
)
async def test_an_answer_in_parts_is_one_whole_message(
    autojump_clock: MockClock, body: bytes, match: str
) -> None:
    async def call(channel: Channel) -> None:
        await take_answer(stub(channel, "Echo"), Raw(b""), ElementCutter(1).cut)

    async with dialled(fails_with(ProtocolError, match, call)) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, RESPONSE), frames.data(1, body))
        await peer.send(peer.write.headers(1, DONE, end=True))


async def test_an_error_status_comes_before_what_lacks_of_an_answer_in_parts(
    autojump_clock: MockClock,
) -> None:
    async def call(channel: Channel) -> None:
        await take_answer(stub(channel, "Echo"), Raw(b""), lambda _part: None)

    async with dialled(fails_with(RpcFailedError, "UNAVAILABLE", call)) as peer:
        await has_request(peer)
        await peer.send(peer.write.headers(1, [*RESPONSE, ("grpc-status", "14")], end=True))


async def test_parts_take_no_room_in_the_windows(autojump_clock: MockClock) -> None:
    async def use(channel: Channel) -> None:
        await take_answer(
            stub(channel, "Grow"), Raw(b"900000"), lambda part: sizes.append(len(part))
        )

    sizes: list[int] = []
    near, far = memory_stream_pair()
    server = Server([Service()], DEFAULT_LIMITS, lambda error: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, far)
        limits = Limits(connection_window=70_000)
        await with_channel(near, use, limits=limits)
    assert sum(sizes) == 900_000
