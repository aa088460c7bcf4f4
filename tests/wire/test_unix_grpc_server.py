"""Statuses as gRPC defines them, and handlers that end, awaited, with the call that they serve."""

import logging
import struct

import pytest
import trio
from purerpc import FailedPreconditionError
from trio.testing import MockClock, memory_stream_pair

from biren_plugin.wire._proto import deviceplugin_pb2 as pb
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Limits, Server
from tests.hostile import frames
from tests.hostile.peer import Answer, Peer
from tests.hostile.service import Served, Service, serving, well_afterwards

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 4, 8
FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL = 9, 12, 13


async def ask(
    served: Served, method: str, body: bytes = b"", *extra: frames.Header
) -> tuple[Peer, Answer]:
    """One call on a connection of its own."""
    peer = await served.connect()
    await peer.send(peer.write.call(1, method, body, *extra))
    return peer, await peer.answer(1)


async def test_answers_a_call_with_headers_message_and_trailers(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"hello")
        assert answer.headers == {
            b":status": b"200",
            b"content-type": b"application/grpc+proto",
        }
        assert answer.messages == [b"hello"]
        assert answer.trailers == {b"grpc-status": b"0"}
        assert answer.reset is None


async def test_messages_arrive_typed(autojump_clock: MockClock) -> None:
    request = pb.AllocateRequest(container_requests=[{"devices_ids": ["card_0"]}])
    async with well_afterwards() as served:
        _, answer = await ask(served, "Typed", request.SerializeToString())
        assert pb.AllocateRequest.FromString(answer.messages[0]) == request


@pytest.mark.parametrize(
    "path", ["/test.Service/Nothing", "/other.Service/Echo", "/Echo", "Echo", "/", "//"]
)
async def test_unknown_method_is_unimplemented(autojump_clock: MockClock, path: str) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"", (":path", path))
        assert answer.status == UNIMPLEMENTED
        assert "Echo" in answer.text or "/" in answer.text


async def test_unreadable_message_is_internal(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Typed", b"\x0a\x10truncated")
        assert answer.status == INTERNAL
        assert "unreadable message" in answer.text


async def test_a_request_without_a_message_is_internal(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.request(1), frames.data(1, end=True))
        assert (await peer.answer(1)).status == INTERNAL


@pytest.mark.parametrize(("given", "seconds"), [("5S", 5), ("1500m", 1.5), ("1H", 3600)])
async def test_a_passed_deadline_ends_the_handler(
    autojump_clock: MockClock, given: str, seconds: float
) -> None:
    async with well_afterwards(Limits(answer=7200)) as served:
        started = trio.current_time()
        _, answer = await ask(served, "Hang", b"", ("grpc-timeout", given))
        assert answer.status == DEADLINE_EXCEEDED
        assert trio.current_time() - started == pytest.approx(seconds + 1), (
            "with the second it cleans up in"
        )
        assert isinstance(served.service.causes[0], trio.Cancelled)


async def test_a_handler_that_hangs_is_ended_by_our_own_deadline(autojump_clock: MockClock) -> None:
    async with well_afterwards(Limits(answer=2)) as served:
        _, answer = await ask(served, "Hang", b"")
        assert answer.status == DEADLINE_EXCEEDED
        assert answer.text == "no answer before the deadline"
        assert isinstance(served.service.causes[0], trio.Cancelled)


async def test_a_deadline_that_no_one_can_read_is_refused(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"", ("grpc-timeout", "soon"))
        assert answer.status == INTERNAL
        assert "soon" in answer.text


async def test_a_call_in_time_is_not_disturbed_by_its_deadline(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"hello", ("grpc-timeout", "1S"))
        assert (answer.status, answer.messages) == (OK, [b"hello"])


async def test_a_request_too_large_is_resource_exhausted(autojump_clock: MockClock) -> None:
    async with well_afterwards(Limits(message_size=1000)) as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Echo", b"x" * 1000))
        assert (await peer.answer(1)).status == OK
        await peer.send(
            peer.write.request(3), frames.data(3, struct.pack(">BI", 0, 1001) + b"x" * 995)
        )
        assert (await peer.answer(3)).status == RESOURCE_EXHAUSTED


async def test_a_servicers_own_status_reaches_the_caller(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        served.service.error = FailedPreconditionError("card_0 is 100 % busy, größer als erlaubt")
        _, answer = await ask(served, "Fail")
        assert answer.status == FAILED_PRECONDITION
        assert answer.text == "card_0 is 100 %25 busy, gr%C3%B6%C3%9Fer als erlaubt"


@pytest.mark.parametrize("method", ["Fail", "FailLate"])
async def test_a_bug_is_opaque_to_the_caller_and_reported_to_on_bug(
    autojump_clock: MockClock, method: str
) -> None:
    async with serving() as served:
        peer, answer = await ask(served, method, b"hello")
        assert answer.status == INTERNAL
        assert "secret" not in answer.text
        assert served.bugs == [served.service.error]
        await peer.send(peer.write.call(3, "Echo", b"still there"))
        assert (await peer.answer(3)).messages == [b"still there"]


async def test_an_answer_too_large_to_send_is_a_bug(autojump_clock: MockClock) -> None:
    async with serving(Limits(message_size=1000)) as served:
        _, answer = await ask(served, "Grow", b"1001")
        assert (answer.status, answer.messages) == (INTERNAL, [])
        assert len(served.bugs) == 1


async def test_a_status_text_that_is_no_unicode_still_arrives(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        served.service.error = FailedPreconditionError("no such file: caf\udce9")
        _, answer = await ask(served, "Fail")
        assert answer.status == FAILED_PRECONDITION


async def test_an_exception_from_on_bug_ends_the_server(autojump_clock: MockClock) -> None:
    def give_up(error: Exception) -> None:
        raise error

    service = Service()
    near, far = memory_stream_pair()
    peer = Peer(near)
    await peer.greet()
    await peer.send(peer.write.call(1, "Fail"))
    with pytest.raises(ExceptionGroup) as caught:
        await Server([service], DEFAULT_LIMITS, give_up).handle(far)
    assert caught.group_contains(KeyError)
    await peer.until_closed()


@pytest.mark.parametrize(
    ("encoding", "status"), [("identity", OK), ("gzip", UNIMPLEMENTED), ("snappy", UNIMPLEMENTED)]
)
async def test_every_encoding_except_identity_is_unimplemented(
    autojump_clock: MockClock, encoding: str, status: int
) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"hello", ("grpc-encoding", encoding))
        assert answer.status == status


@pytest.mark.parametrize("given", ["application/grpc", "application/grpc+proto"])
async def test_both_content_types_are_accepted(autojump_clock: MockClock, given: str) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"hello", ("content-type", given))
        assert answer.status == OK


@pytest.mark.parametrize("given", ["", "text/plain", "application/json", "application/grpcx"])
async def test_another_content_type_is_http_415(autojump_clock: MockClock, given: str) -> None:
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"hello", ("content-type", given))
        assert answer.headers[b":status"] == b"415"
        assert served.service.running == 1, "only the watcher's"


async def test_metadata_in_any_form_is_left_alone(autojump_clock: MockClock) -> None:
    extra: list[frames.Header] = [
        ("x-token", "one"),
        ("x-token", "two"),
        ("X-Odd-Case", "three"),
        ("trace-bin", "AAEC/w"),
        ("bytes-bin", b"\x00\xff\xfe"),
        ("empty", ""),
        ("cookie", "a=b"),
    ]
    async with well_afterwards() as served:
        _, answer = await ask(served, "Echo", b"hello", *extra)
        assert (answer.status, answer.messages) == (OK, [b"hello"])


async def test_an_error_in_one_call_leaves_its_siblings_alone(autojump_clock: MockClock) -> None:
    async with well_afterwards(Limits(message_size=1000)) as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Watch"))
        await peer.messages(1, 1)
        bad = [
            peer.write.call(3, "Nothing"),
            peer.write.call(5, "Typed", b"\x0a\x10truncated"),
            peer.write.request(7) + frames.data(7, frames.message(b"", length=2**30)),
            peer.write.call(9, "Echo", b"", ("grpc-encoding", "gzip")),
            peer.write.request(11) + frames.data(11, frames.message(b"zip", compressed=1)),
            peer.write.call(13, "Hang", b"", ("grpc-timeout", "1n")),
            peer.write.request(15) + frames.reset(15),
        ]
        await peer.send(*bad, peer.write.call(17, "Echo", b"well"))
        assert (await peer.answer(17)).messages == [b"well"]
        statuses = [(await peer.answer(each)).status for each in (3, 5, 7, 9, 11, 13)]
        assert statuses == [
            UNIMPLEMENTED,
            INTERNAL,
            RESOURCE_EXHAUSTED,
            UNIMPLEMENTED,
            INTERNAL,
            DEADLINE_EXCEEDED,
        ]
        served.service.updates.post(b"news")
        assert (await peer.messages(1, 2))[-1] == b"news"


async def test_connections_over_the_limit_are_closed_and_nobody_else_notices(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with well_afterwards(Limits(connections=3)) as served:
        second, third = await served.connect(), await served.connect()
        with caplog.at_level(logging.WARNING):
            fourth = await served.connect(greets=False)
            await fourth.until_closed()
        assert "3 connections are open: closing further ones" in caplog.text
        await served.leave(second)
        await third.has_pong()
        caplog.set_level(logging.INFO)
    assert "connections are accepted again" in caplog.text
