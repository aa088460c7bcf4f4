"""GetPreferredAllocation on the wire, called by grpcio: the best answer, or a refusal.

Real time and a real socket, for grpcio has no mock clock; each wait has a deadline, and none is
waited out.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import trio

from biren_plugin.board import Board
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse.brml import P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.choose import Placement
from biren_plugin.core.placement.topology import build_topology
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.doubtful_cards import DoubtfulCards
from biren_plugin.device_plugin.node import Streams
from biren_plugin.device_plugin.plugin_server import DevicePlugin, serve_plugin, watch_devices
from biren_plugin.worker_thread import WorkerThread
from tests.kubelet.protos import load
from tests.support.cards import GPU

DEADLINE = 20.0  # real seconds, against a hang

Request = tuple[Sequence[int], Sequence[int], int]
"""Available, must include, size; numbers of cards."""


def inventory_of(cards: int, *sick: int, split: int = 1) -> Inventory:
    """Cards of which each four are linked directly; those in `sick` are Unhealthy."""
    found = [Card(f"card_{number}", number, number // split) for number in range(cards)]
    links = {
        (one, two): P2PLink.DIRECT if one // 4 == two // 4 else P2PLink.NONE
        for two in range(cards)
        for one in range(two)
    }
    devices = [
        Device(card, GPU, reasons=("it is sick",) if card.number in sick else ()) for card in found
    ]
    return Inventory((DeviceList(GPU, tuple(devices)),), topology=build_topology(found, links))


class Asking:
    """A plugin on a socket, and a grpcio client of it."""

    def __init__(self, stub: Any, inventory: Board[Inventory]) -> None:
        self._stub = stub
        self.inventory = inventory

    async def prefer(self, *requests: Request) -> list[list[int]]:
        """The numbers that are chosen for each container. Raises `grpc.RpcError`."""
        message = load().PreferredAllocationRequest()
        for available, must, size in requests:
            message.container_requests.add(
                available_deviceIDs=[f"card_{number}" for number in available],
                must_include_deviceIDs=[f"card_{number}" for number in must],
                allocation_size=size,
            )
        answer = await self._call(lambda: self._stub.GetPreferredAllocation(message))
        return [
            [int(each.removeprefix("card_")) for each in container.deviceIDs]
            for container in answer.container_responses
        ]

    async def offers_preferences(self) -> bool:
        """Return the value in GetDevicePluginOptions."""
        answer = await self._call(lambda: self._stub.GetDevicePluginOptions(load().Empty()))
        return bool(answer.get_preferred_allocation_available)

    async def _call(self, call: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


@contextlib.asynccontextmanager
async def serving(
    folder: Path, inventory: Inventory, placement: Placement = "packed"
) -> AsyncIterator[Asking]:
    inventories, offered = Board[Inventory](), Board[DeviceList]()
    inventories.post(inventory)
    offered.post(inventory.lists[0])
    streams = Board[Streams]()
    doubtful = DoubtfulCards(GPU, DaemonState())
    plugin = DevicePlugin(
        offered,
        inventories,
        lambda: watch_devices(offered, streams),
        placement,
        edits_for,
        doubtful,
    )
    with trio.fail_after(DEADLINE), grpc.insecure_channel(f"unix:{folder / 'p.sock'}") as channel:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_plugin, folder / "p.sock", plugin, WorkerThread())
            yield Asking(load().stub(channel, "DevicePlugin"), inventories)
            nursery.cancel_scope.cancel()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


async def test_the_kubelet_learns_that_it_may_ask_for_preferences(tmp_path: Path) -> None:
    async with serving(tmp_path, inventory_of(8)) as asking:
        assert await asking.offers_preferences()


async def test_every_container_of_a_request_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, inventory_of(8)) as asking:
        chosen = await asking.prefer(
            (range(8), (), 2), (range(3, 8), (), 4), (range(8), [6], 3), ((), (), 0)
        )
        assert chosen == [[0, 1], [4, 5, 6, 7], [4, 5, 6], []]
        assert await asking.prefer() == []


async def test_unhealthy_and_unknown_ids_are_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path, inventory_of(8, 0, 5)) as asking:
        assert await asking.prefer(([0, 1, 2, 5, 99], (), 2)) == [[1, 2]]
        assert await asking.prefer((range(8), (), 3)) == [[1, 2, 3]]


async def test_required_cards_are_chosen_even_if_they_became_unhealthy(tmp_path: Path) -> None:
    async with serving(tmp_path, inventory_of(8, 5)) as asking:
        assert await asking.prefer((range(8), [5], 2)) == [[4, 5]]


async def test_a_too_large_request_is_answered_with_all_cards_and_logged(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    async with serving(tmp_path, inventory_of(8, 0)) as asking:
        assert await asking.prefer(([0, 3, 1], (), 2)) == [[1, 3]]
        assert warnings() == []
        assert await asking.prefer(([0, 3, 1], (), 3)) == [[1, 3]]
        assert warnings() == [
            f"{GPU}: asked to choose 3 of 3 cards, but only 2 of them are known and Healthy"
        ]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ((range(8), (), -1), "a choice of -1 devices"),
        ((range(8), [1, 2], 1), "2 devices must be in a choice of 1"),
        (([1, 2, 1], (), 2), "card_1 is named twice"),
        ((range(8), [4, 4], 2), "card_4 is named twice"),
    ],
)
async def test_only_a_contradictory_request_is_refused(
    tmp_path: Path, warnings: Callable[[], list[str]], request_: Request, says: str
) -> None:
    async with serving(tmp_path, inventory_of(8)) as asking:
        with pytest.raises(grpc.RpcError) as caught:
            await asking.prefer((range(8), (), 2), request_)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert says in caught.value.details()
        assert says in warnings()[0]
        assert await asking.prefer((range(8), (), 1)) == [[0]], "it is over with that call"


async def test_instances_are_placed_as_configured(tmp_path: Path) -> None:
    node = inventory_of(8, split=4)
    async with serving(tmp_path, node) as asking:
        assert await asking.prefer((range(1, 8), (), 1), (range(8), (), 2)) == [[1], [0, 1]]
    async with serving(tmp_path, node, "spread") as asking:
        assert await asking.prefer((range(1, 8), (), 1), (range(8), (), 2)) == [[4], [0, 4]]


async def test_the_choice_follows_the_topology_of_the_last_inventory(tmp_path: Path) -> None:
    node = inventory_of(8)
    async with serving(tmp_path, node) as asking:
        assert await asking.prefer(([0, 1, 7], (), 2)) == [[0, 1]]
        cards = [device.card for device in node.lists[0].devices]
        other = build_topology(cards, {(1, 7): P2PLink.DIRECT})
        asking.inventory.post(attrs.evolve(node, topology=other))
        assert await asking.prefer(([0, 1, 7], (), 2)) == [[1, 7]]
