"""A stream that its reader resets between two messages closes what it was reading, in its own task.

What is left to the garbage collector is closed at some later time; trio warns then, which fails the test.
"""

import gc
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from biren_plugin.core.dra.claims import DeviceHealth
from biren_plugin.core.model import DeviceList
from biren_plugin.wire.device_plugin import new_server
from biren_plugin.wire.dra_plugin import new_driver_server
from biren_plugin.wire.unix_grpc import Server
from tests.hostile import frames
from tests.hostile.peer import Peer
from tests.support.bugs import raise_bug


class Endless:
    """What a server streams: lists without end. Calls other than a stream's are not made here."""

    prepare = unprepare = prefer = allocate = None

    def __init__(self) -> None:
        self.closings: list[str] = []

    async def _lists(self, each: object) -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield each
        finally:
            self.closings.append("closed")

    def health(self) -> AsyncGenerator[Sequence[DeviceHealth], None]:
        return self._lists([DeviceHealth("node", "card", "")])

    def watch(self) -> AsyncGenerator[DeviceList, None]:
        return self._lists(DeviceList("birentech.com/gpu"))


def a_plugin(source: Any) -> Server:
    return new_server(source, raise_bug)


def a_driver(source: Any) -> Server:
    return new_driver_server(source, raise_bug, lambda _service: None)


@pytest.mark.parametrize(
    ("serve", "path"),
    [
        (a_plugin, "/v1beta1.DevicePlugin/ListAndWatch"),
        (a_driver, "/v1.DRAResourceHealth/NodeWatchResources"),
        (a_driver, "/v1alpha1.DRAResourceHealth/NodeWatchResources"),
    ],
)
async def test_a_stream_reset_before_its_message_was_read_closes_its_source(
    autojump_clock: MockClock, serve: Any, path: str
) -> None:
    source = Endless()
    near, far = memory_stream_pair()
    peer = Peer(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve(source).handle, far)
        await peer.greet({frames.INITIAL_WINDOW_SIZE: 0})
        await peer.send(peer.write.call(1, path))
        await wait_all_tasks_blocked()
        assert source.closings == []
        await peer.send(frames.reset(1))
        await wait_all_tasks_blocked()
        assert source.closings == ["closed"]
        await peer.close()
    gc.collect()
