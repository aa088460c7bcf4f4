"""However a call ends, its handler is cancelled and awaited, and our own shutdown says goodbye."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Server
from tests.hostile import frames
from tests.hostile.peer import Answer, Peer
from tests.hostile.service import Served, Service, serving, well_afterwards
from tests.support.bugs import raise_bug


async def by_reset(served: Served, peer: Peer) -> None:
    await peer.send(frames.reset(1))


async def by_goaway(served: Served, peer: Peer) -> None:
    await peer.send(frames.goaway())


async def by_close(served: Served, peer: Peer) -> None:
    await peer.close()


@pytest.mark.parametrize("method", ["Hang", "Watch"])
@pytest.mark.parametrize("leave", [by_reset, by_goaway, by_close])
async def test_a_peer_that_leaves_ends_its_handlers(
    autojump_clock: MockClock, leave: Callable[[Served, Peer], Awaitable[None]], method: str
) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, method))
        await wait_all_tasks_blocked()
        assert served.service.running == 2
        await leave(served, peer)
        await wait_all_tasks_blocked()
        await trio.sleep(2)  # of the mock clock: longer than Hang cleans up
        assert served.service.running == 1
        assert isinstance(served.service.causes[0], trio.Cancelled)


async def test_a_connection_ends_after_its_handlers_have(autojump_clock: MockClock) -> None:
    async with serving() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Hang"))
        await wait_all_tasks_blocked()
        await peer.close()
        await wait_all_tasks_blocked()
        assert (served.service.running, peer.left.is_set()) == (1, False)
        await peer.left.wait()
        assert served.service.running == 0


async def test_a_server_that_is_cancelled_awaits_its_handlers_and_closes(
    autojump_clock: MockClock,
) -> None:
    with trio.CancelScope() as scope:
        async with serving() as served:
            peer = await served.connect()
            await peer.send(peer.write.call(1, "Hang"), peer.write.call(3, "Watch"))
            await wait_all_tasks_blocked()
            assert served.service.running == 2
            scope.cancel()
    assert served.service.running == 0
    assert all(isinstance(cause, trio.Cancelled) for cause in served.service.causes)
    assert served.bugs == []
    await peer.until_closed()


async def test_our_shutdown_ends_the_calls_and_waits_until_the_peer_has_closed(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    peer = Peer(near)
    async with trio.open_nursery() as nursery:

        async def handle() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(shut_down_later, scope)
                await Server([Service()], DEFAULT_LIMITS, lambda error: None).handle(far)
            peer.left.set()

        async def shut_down_later(scope: trio.CancelScope) -> None:
            await wait_all_tasks_blocked()
            scope.cancel()

        nursery.start_soon(handle)
        await peer.greet()
        await peer.send(peer.write.call(1, "Watch"), peer.write.call(3, "Echo"))
        await peer.until(lambda: peer.goaway is not None)
        assert peer.answers[1].reset == frames.CANCEL
        assert peer.answers[3].reset is None, "it was answered before"
        await wait_all_tasks_blocked()
        assert not peer.left.is_set()
        await peer.close()
        await wait_all_tasks_blocked()
        assert peer.left.is_set()


@pytest.mark.parametrize("unread", [True, False])
@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("last", [b"", b"\xff" * 100], ids=["well", "broken"])
async def test_our_shutdown_waits_no_longer_than_its_limit(
    autojump_clock: MockClock, last: bytes, *, unread: bool, greets: bool
) -> None:
    near, far = lockstep_stream_pair() if unread else memory_stream_pair()
    peer = Peer(near)
    service = Service()
    async with trio.open_nursery() as nursery:

        async def say() -> None:
            await (peer.greet() if greets else peer.send(frames.PREFACE))
            await peer.send(peer.write.call(1, "Watch"))
            await peer.send(last)

        nursery.start_soon(say)
        started = trio.current_time()
        with trio.move_on_after(0.5):
            await Server([service], DEFAULT_LIMITS, lambda error: None).handle(far)
        assert trio.current_time() - started < 0.5 + DEFAULT_LIMITS.closing + 0.1
        assert service.running == 0
    await peer.until_closed()


class OneConnection(trio.abc.Listener[trio.abc.Stream]):
    """A listener with a single caller."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        return self.streams.pop() if self.streams else await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_call_without_an_answer_does_not_delay_the_end_of_its_server_for_long(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    peer, service = Peer(near), Service()
    service.tidying = 0
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            await peer.greet()
            await peer.send(peer.write.call(1, "Hang"))

        nursery.start_soon(call)
        with trio.move_on_after(5):
            await Server([service], DEFAULT_LIMITS, raise_bug).serve(OneConnection(far), 0.5)
        assert service.running == 0
        assert 5.5 <= trio.current_time() <= 5.5 + DEFAULT_LIMITS.closing


async def test_a_reset_call_gets_no_answer(autojump_clock: MockClock) -> None:
    async with well_afterwards() as served:
        peer = await served.connect()
        await peer.send(peer.write.call(1, "Hang"))
        await wait_all_tasks_blocked()
        await peer.send(frames.reset(1))
        await trio.sleep(2)
        await peer.has_pong()
        assert peer.answers.get(1, Answer()) == Answer()


async def test_a_bug_during_cleanup_is_reported_even_without_a_waiting_caller(
    autojump_clock: MockClock,
) -> None:
    class Untidy(Service):
        async def Hang(self, request: object) -> object:  # type: ignore[override]  # noqa: N802
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("while cleaning up")

    bugs: list[Exception] = []
    near, far = memory_stream_pair()
    peer = Peer(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server([Untidy()], DEFAULT_LIMITS, bugs.append).handle, far)
        await peer.greet()
        await peer.send(peer.write.call(1, "Hang"))
        await wait_all_tasks_blocked()
        await peer.send(frames.reset(1))
        await wait_all_tasks_blocked()
        await peer.close()
    assert [type(bug) for bug in bugs] == [KeyError]
