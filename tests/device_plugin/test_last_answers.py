"""A call of the kubelet that is under way when a plugin ends is answered: one that is cut off costs its pod."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.doubtful_cards import DoubtfulCards
from biren_plugin.device_plugin.node import Streams
from biren_plugin.device_plugin.plugin_server import DevicePlugin, serve_plugin, watch_devices
from biren_plugin.worker_thread import WorkerThread
from tests.device_plugin.test_preferred_allocation import inventory_of
from tests.kubelet.protos import load
from tests.support.cards import GPU
from tests.support.dra_node import in_thread

DEADLINE = 20.0


async def test_an_allocation_under_way_is_answered_before_the_plugin_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """This clock stands: however busy the machine is, the answer is not late."""
    inventories, offered = Board[Inventory](), Board[DeviceList]()
    inventories.post(inventory_of(2))
    offered.post(inventory_of(2).lists[0])
    streams = Board[Streams]()
    doubtful = DoubtfulCards(GPU, DaemonState())
    plugin = DevicePlugin(
        offered, inventories, lambda: watch_devices(offered, streams), "packed", edits_for, doubtful
    )
    allocate = plugin.allocate
    called, life = trio.Event(), trio.CancelScope()

    async def allocate_slowly(requests: Sequence[Sequence[str]]) -> Any:
        called.set()
        await wait_all_tasks_blocked(0.05)
        assert life.cancel_called
        return await allocate(requests)

    monkeypatch.setattr(plugin, "allocate", allocate_slowly)
    own = path / "p.sock"

    async def serve(*, task_status: trio.TaskStatus[Any]) -> None:
        with life:
            await serve_plugin(own, plugin, WorkerThread(), task_status=task_status)

    request = load().AllocateRequest()
    request.container_requests.add(devices_ids=["card_1"])
    with grpc.insecure_channel(f"unix:{own}") as channel:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            future = load().stub(channel, "DevicePlugin").Allocate.future(request)
            await called.wait()
            life.cancel()
            answer = await in_thread(lambda: future.result(timeout=DEADLINE))
    assert len(answer.container_responses) == 1
