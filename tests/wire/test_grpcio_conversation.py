"""Another implementation of gRPC, the C core of grpcio, finds nothing odd about ours.

Real time and real sockets, for grpcio has neither a mock clock nor other transports; each wait has
a deadline, and none is waited out.
"""

import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import trio
from purerpc import FailedPreconditionError, RpcFailedError

from biren_plugin.unix_sockets import UnixListener
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Channel, Server, with_channel
from tests.hostile.service import Raw, Service, stub

DEADLINE = 20.0  # real seconds, against a hang
T = TypeVar("T")


class Calls:
    """A grpcio client of the tests' service; messages are bytes on both sides."""

    def __init__(self, path: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix:{path}")

    def start(self, method: str, body: bytes = b"", **options: Any) -> Any:
        """A unary call under way: a future, and a context."""
        call = self.channel.unary_unary(f"/test.Service/{method}")
        return call.future(body, **{"timeout": DEADLINE, **options})

    def ask(self, method: str, body: bytes = b"", **options: Any) -> bytes:
        """The answer."""
        answer: bytes = self.start(method, body, **options).result()
        return answer

    def refused(self, method: str, body: bytes = b"", **options: Any) -> tuple[str, str]:
        """The status and the text of a call that must fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(method, body, **options)
        return caught.value.code().name, caught.value.details()

    def watch(self, **options: Any) -> Any:
        """A stream under way."""
        return self.channel.unary_stream("/test.Service/Watch")(b"", **options)


class Talk:
    """Our server on a socket, and a grpcio client whose blocking calls run in threads."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.service = Service()
        self.service.tidying = 0.0
        self.bugs: list[Exception] = []

    async def in_thread(self, work: Callable[[Calls], T]) -> T:
        """The result of `work`, which may block."""
        return await trio.to_thread.run_sync(work, self.calls, abandon_on_cancel=True)

    async def has_running(self, count: int) -> None:
        """Waits until so many handlers are under way."""
        if self.service.running != count:
            await self.service.handlers.wait_for(lambda running: running == count)


@contextlib.asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Talk]:
    path = folder / "plugin.sock"
    calls = Calls(path)
    talk = Talk(calls)
    server = Server([talk.service], DEFAULT_LIMITS, talk.bugs.append)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            listener = UnixListener(path)
            nursery.start_soon(trio.serve_listeners, server.handle, [listener])
            try:
                yield talk
                await talk.has_running(0)
                assert await talk.in_thread(lambda calls: calls.ask("Echo", b"well")) == b"well"
            finally:
                calls.channel.close()
                nursery.cancel_scope.cancel()
    assert talk.bugs == []


async def test_calls_one_after_another_are_answered(tmp_path: Path) -> None:
    def work(calls: Calls) -> None:
        for size in (0, 1, 16_379, 16_380, 100_000, 1_000_000):
            assert calls.ask("Echo", b"x" * size) == b"x" * size

    async with talking(tmp_path) as talk:
        await talk.in_thread(work)


async def test_many_calls_at_once_are_answered_each_with_its_own(tmp_path: Path) -> None:
    def work(calls: Calls) -> None:
        started = [calls.start("Echo", b"%d" % each) for each in range(200)]
        assert [each.result() for each in started] == [b"%d" % each for each in range(200)]

    async with talking(tmp_path) as talk:
        await talk.in_thread(work)


async def test_large_answers_pass_while_a_stream_is_open(tmp_path: Path) -> None:
    def work(calls: Calls) -> None:
        stream = calls.watch()
        assert next(stream) == b"first"
        started = [calls.start("Grow", b"1000000") for _ in range(8)]
        assert all(len(each.result()) == 1_000_000 for each in started)
        stream.cancel()

    async with talking(tmp_path) as talk:
        talk.service.updates.post(b"first")
        await talk.in_thread(work)


async def test_a_stream_gets_each_update_and_ends_when_cancelled(tmp_path: Path) -> None:
    got: queue.Queue[bytes] = queue.Queue()

    def follow(calls: Calls) -> str:
        stream = calls.watch()
        try:
            for update in stream:
                got.put(update)
                if update == b"last":
                    stream.cancel()
        except grpc.RpcError as error:
            return str(error.code().name)
        return "ended"

    async with talking(tmp_path) as talk, trio.open_nursery() as nursery:

        async def run() -> None:
            assert await talk.in_thread(follow) == "CANCELLED"

        nursery.start_soon(run)
        for update in (b"first", b"second", b"last"):
            talk.service.updates.post(update)
            assert await trio.to_thread.run_sync(got.get) == update
    assert isinstance(talk.service.causes[0], trio.Cancelled)


async def test_a_client_that_goes_away_ends_its_handlers(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        other = Calls(tmp_path / "plugin.sock")
        talk.service.updates.post(b"first")
        stream = other.watch()
        assert await trio.to_thread.run_sync(next, stream) == b"first"
        hanging = other.start("Hang")
        await talk.has_running(2)
        other.channel.close()
        assert hanging.code() is grpc.StatusCode.CANCELLED


async def test_a_deadline_of_the_client_ends_the_handler(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        code, _ = await talk.in_thread(lambda calls: calls.refused("Hang", timeout=0.05))
        assert code == "DEADLINE_EXCEEDED"


async def test_statuses_arrive_with_their_texts(tmp_path: Path) -> None:
    text = 'card_0 is 100 % busy: größer, "quoted", and\na second line'

    def work(calls: Calls) -> None:
        assert calls.refused("Fail") == ("FAILED_PRECONDITION", text)
        assert calls.refused("Nothing")[0] == "UNIMPLEMENTED"
        assert calls.refused("Typed", b"\x0a\x10truncated")[0] == "INTERNAL"
        assert calls.refused("Echo", b"x" * (2**20 + 1))[0] == "RESOURCE_EXHAUSTED"
        assert calls.refused("Echo", compression=grpc.Compression.Gzip)[0] == "UNIMPLEMENTED"

    async with talking(tmp_path) as talk:
        talk.service.error = FailedPreconditionError(text)
        await talk.in_thread(work)


async def test_a_bug_is_opaque(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        code, text = await talk.in_thread(lambda calls: calls.refused("Fail"))
        assert code == "INTERNAL"
        assert "secret" not in text
        assert talk.bugs == [talk.service.error]
        talk.bugs.clear()


async def test_metadata_is_left_alone(tmp_path: Path) -> None:
    metadata = [("key", "one"), ("key", "two"), ("trace-bin", b"\x00\x01\xff")]
    async with talking(tmp_path) as talk:
        answer = await talk.in_thread(lambda calls: calls.ask("Echo", b"x", metadata=metadata))
        assert answer == b"x"


async def test_our_shutdown_ends_what_the_client_has_open(tmp_path: Path) -> None:
    path = tmp_path / "plugin.sock"
    calls, service = Calls(path), Service()
    server = Server([service], DEFAULT_LIMITS, lambda error: None)
    service.updates.post(b"first")
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, server.handle, [UnixListener(path)])
            stream = calls.watch()
            assert await trio.to_thread.run_sync(next, stream) == b"first"
            nursery.cancel_scope.cancel()
        code = await trio.to_thread.run_sync(stream.code)
    calls.channel.close()
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert not await trio.Path(path).exists()


# The other way round: our client, their server.


class TheirService:
    """The same methods on grpcio."""

    def __init__(self, path: Path) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "Grow": grpc.unary_unary_rpc_method_handler(lambda size, context: b"x" * int(size)),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self._hang),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        self.server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.method_handlers_generic_handler("test.Service", handlers)
        self.server.add_generic_rpc_handlers((handler,))
        self.server.add_insecure_port(f"unix:{path}")

    def _fail(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "größer als 100 %")
        return b""

    def _hang(self, request: bytes, context: Any) -> bytes:
        context.add_callback(self.ended.set)
        self.began.set()
        self.ended.wait(DEADLINE)
        return b""

    def _watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield from (b"%d" % each for each in range(int(request)))


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[TheirService]:
    service = TheirService(tmp_path / "theirs.sock")
    service.server.start()
    yield service
    service.ended.set()
    service.server.stop(None).wait()


async def call_theirs(folder: Path, use: Callable[[Channel], Any]) -> None:
    with trio.fail_after(DEADLINE):
        await with_channel(await trio.open_unix_socket(folder / "theirs.sock"), use)


async def test_our_client_gets_their_answers(tmp_path: Path, theirs: TheirService) -> None:
    async def use(channel: Channel) -> None:
        for size in (0, 1, 16_380, 1_000_000):
            assert (await stub(channel, "Echo")(Raw(b"x" * size))).data == b"x" * size
        assert len((await stub(channel, "Grow")(Raw(b"1000000"))).data) == 1_000_000
        async with contextlib.aclosing(stub(channel, "Watch")(Raw(b"1000"))) as updates:
            found = [each.data async for each in updates]
        assert found == [b"%d" % each for each in range(1000)]

    await call_theirs(tmp_path, use)


async def test_our_client_gets_their_statuses(tmp_path: Path, theirs: TheirService) -> None:
    async def use(channel: Channel) -> None:
        with pytest.raises(RpcFailedError, match="INVALID_ARGUMENT: größer als 100 %"):
            await stub(channel, "Fail")(Raw(b""))
        with pytest.raises(RpcFailedError, match="UNIMPLEMENTED"):
            await stub(channel, "Typed")(Raw(b""))

    await call_theirs(tmp_path, use)


async def test_a_call_that_we_give_up_ends_on_their_side(
    tmp_path: Path, theirs: TheirService
) -> None:
    async def use(channel: Channel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stub(channel, "Hang"), Raw(b""))
            assert await trio.to_thread.run_sync(theirs.began.wait, DEADLINE)
            nursery.cancel_scope.cancel()
        assert await trio.to_thread.run_sync(theirs.ended.wait, DEADLINE)
        assert (await stub(channel, "Echo")(Raw(b"well"))).data == b"well"

    await call_theirs(tmp_path, use)
