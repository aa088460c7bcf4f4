"""A service with one method for each thing that a handler may do, and the harness that serves it."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any, Self

import purerpc
import trio
import trio.testing

from biren_plugin.board import Board
from biren_plugin.wire._proto import deviceplugin_pb2 as pb
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Channel, Limits, Server
from tests.hostile.peer import Peer


class Raw:
    """A message that is its bytes."""

    DESCRIPTOR = SimpleNamespace(full_name="test.Raw")  # purerpc's stubs ask for the name

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's spelling
        """Itself."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802 - protobuf's spelling
        """Anything is a message."""
        return cls(data)


_UNARY, _STREAM = purerpc.Cardinality.UNARY_UNARY, purerpc.Cardinality.UNARY_STREAM
SIGNATURES = {
    "Echo": purerpc.RPCSignature(_UNARY, Raw, Raw),
    "Typed": purerpc.RPCSignature(_UNARY, pb.AllocateRequest, Raw),
    "Grow": purerpc.RPCSignature(_UNARY, Raw, Raw),
    "Fail": purerpc.RPCSignature(_UNARY, Raw, Raw),
    "Hang": purerpc.RPCSignature(_UNARY, Raw, Raw),
    "Watch": purerpc.RPCSignature(_STREAM, Raw, Raw),
    "FailLate": purerpc.RPCSignature(_STREAM, Raw, Raw),
}


def stub(channel: Channel, method: str) -> Any:
    """The calling side of one method, as purerpc's generated stubs build it."""
    return purerpc.Client("test.Service", channel).get_method_stub(method, SIGNATURES[method])


class Service(purerpc.Servicer):  # type: ignore[misc]  # purerpc has no types
    """`test.Service`."""

    def __init__(self) -> None:
        self.updates: Board[bytes] = Board()
        self.largest = 10**6
        self.error: Exception = KeyError("secret")
        self.handlers: Board[int] = Board()
        """How many of Hang and Watch have begun and not ended."""
        self.tidying = 1.0
        """Seconds that Hang takes to clean up, whichever side cancels it."""
        self.causes: list[BaseException] = []
        """What ended each of them."""

    @property
    def service(self) -> purerpc.Service:
        """All methods."""
        service = purerpc.Service("test.Service")
        for name, signature in SIGNATURES.items():
            service.add_method(name, getattr(self, name), signature)
        return service

    @property
    def running(self) -> int:
        """How many of Hang and Watch have begun and not ended."""
        return self.handlers.latest or 0

    @contextlib.contextmanager
    def _noted(self) -> Any:
        self.handlers.post(self.running + 1)
        try:
            yield
        except BaseException as cause:
            self.causes.append(cause)
            raise
        finally:
            self.handlers.post(self.running - 1)

    async def Echo(self, request: Raw) -> Raw:  # noqa: N802 - gRPC's spelling, so below
        """The same back."""
        return request

    async def Typed(self, request: pb.AllocateRequest) -> Raw:  # noqa: N802
        """What protobuf made of it."""
        return Raw(request.SerializeToString())

    async def Grow(self, request: Raw) -> Raw:  # noqa: N802
        """As many bytes as asked for, up to `largest`."""
        asked = int(request.data) if request.data.isdigit() else 0
        return Raw(b"x" * min(asked, self.largest))

    async def Fail(self, request: Raw) -> Raw:  # noqa: N802
        """Raises `error`."""
        raise self.error

    async def Hang(self, request: Raw) -> Raw:  # noqa: N802
        """Never answers, and takes its time to clean up."""
        with self._noted():
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.tidying)  # on the mock clock
        raise AssertionError("unreachable")

    async def Watch(self, request: Raw) -> AsyncGenerator[Raw, None]:  # noqa: N802
        """The latest update, and each further one."""
        with self._noted(), self.updates.subscribe() as updates:
            async for update in updates:
                yield Raw(update)

    async def FailLate(self, request: Raw) -> AsyncGenerator[Raw, None]:  # noqa: N802
        """Raises `error` after one message."""
        yield request
        raise self.error


class Served:
    """A server of the tests' service; each connection a task of `nursery`."""

    def __init__(self, nursery: trio.Nursery, limits: Limits) -> None:
        self.service = Service()
        self.bugs: list[Exception] = []
        self.server = Server([self.service], limits, self.bugs.append)
        self.peers: list[Peer] = []
        self._nursery = nursery

    async def connect(self, *, unread: bool = False, greets: bool = True) -> Peer:
        """A new client. With `unread`, bytes that it has not read hold up the server's writes."""
        pair = trio.testing.lockstep_stream_pair if unread else trio.testing.memory_stream_pair
        near, far = pair()
        peer = Peer(near)
        self.peers.append(peer)
        self._nursery.start_soon(self._handle, far, peer)
        if greets:
            await peer.greet()
        return peer

    async def _handle(self, stream: trio.abc.Stream, peer: Peer) -> None:
        try:
            await self.server.handle(stream)
        finally:
            peer.left.set()

    async def leave(self, peer: Peer) -> None:
        """The peer closes; returns when nothing of its connection is left on the server."""
        await peer.close()
        await peer.until_left()


@contextlib.asynccontextmanager
async def serving(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Served]:
    """A server until the end of the block."""
    async with trio.open_nursery() as nursery:
        yield Served(nursery, limits)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def well_afterwards(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Served]:
    """A server that somebody watches; whatever the block does to it, it must be well afterwards.

    That is: the stream that was open all the time gets updates, a call on a new connection is
    answered, no task is left of the block's connections, and nothing was taken for a bug.
    """
    async with serving(limits) as served:
        watcher = await served.connect()
        served.service.updates.post(b"before")
        await watcher.send(watcher.write.call(1, "Watch"))
        assert await watcher.messages(1, 1) == [b"before"]
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        yield served
        served.service.updates.post(b"after")
        seen = watcher.answers[1]
        await watcher.until(lambda: seen.messages[-1] == b"after")
        fresh = await served.connect()
        await fresh.send(fresh.write.call(1, "Echo", b"fresh"))
        answer = await fresh.answer(1)
        assert (answer.status, answer.messages) == (0, [b"fresh"])
        for peer in served.peers:
            if peer is not watcher:
                await served.leave(peer)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert served.service.running == 1
        assert served.bugs == []
