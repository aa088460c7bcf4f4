"""One resource's subtree: only its start order."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.cdi.spec import names_for
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.model import DeviceList
from biren_plugin.core.rivals import Sent
from biren_plugin.device_plugin.doubtful_cards import DoubtfulCards
from biren_plugin.device_plugin.kubelet_folder import socket_name
from biren_plugin.device_plugin.node import Node, OwnSocket, ResourceMemory, Streams
from biren_plugin.device_plugin.offered_devices import probe_health, write_cdi_spec
from biren_plugin.device_plugin.plugin_server import (
    CountedPlugin,
    DevicePlugin,
    serve_plugin,
    watch_devices,
)
from biren_plugin.device_plugin.registration import stay_registered
from biren_plugin.device_plugin.registration_loss import watch_kubelet, watch_rivals
from biren_plugin.errors import StartTooSlow

_START_DEADLINE: Final = 10.0
AFTER_ALLOCATION: Final = 1.5
"""Seconds after an allocation in which the kubelet is asked who holds what."""


async def run_resource(resource: str, node: Node, memory: ResourceMemory) -> None:
    """One life of a resource: ends only by failing or being cancelled."""
    memory.registered.post(False)
    path = node.path / socket_name(resource)
    streams = Board[Streams]()
    counters, inventory, cdi = node.state.counters, node.state.inventory, node.cdi
    sent = Board[Sent]()

    def on_sent(devices: DeviceList) -> None:
        counters.list_sent(resource)
        sent.post(Sent(devices, trio.current_time()))

    scheduler = node.scheduler_of(resource)
    # By NUMA node the kubelet would choose from the other end than a scheduler that has chosen.
    shown = DeviceList.without_numa_nodes if scheduler is not None else _as_it_is
    watch = partial(watch_devices, memory.offered, streams, on_sent, shown)
    answer = partial(edits_for if cdi is None else names_for, visible=node.visible_devices)
    doubtful = DoubtfulCards(resource, node.state)
    plugin = DevicePlugin(
        memory.offered, inventory, watch, node.placement, answer, doubtful, scheduler
    )
    judged = memory.offered if cdi is None else memory.judged
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(_START_DEADLINE) as starting:
            await nursery.start(probe_health, resource, inventory, judged)
            if cdi is not None:
                await nursery.start(write_cdi_spec, judged, cdi, memory.offered)
            counted = CountedPlugin(
                plugin, resource, counters, partial(_note_allocation, resource, node, memory)
            )
            identity = await nursery.start(serve_plugin, path, counted, node.thread)
        if starting.cancelled_caught:
            raise StartTooSlow(resource, _START_DEADLINE)
        socket = OwnSocket(path, identity)
        nursery.start_soon(watch_kubelet, socket, node)
        nursery.start_soon(stay_registered, resource, socket, node, memory, streams)
        nursery.start_soon(watch_rivals, resource, node, memory, sent)


def _as_it_is(devices: DeviceList) -> DeviceList:
    return devices


def _note_allocation(resource: str, node: Node, memory: ResourceMemory, ids: Sequence[str]) -> None:
    memory.rivals.allocated(ids)
    node.state.holding.allocated(resource, ids, trio.current_time())
    node.state.ask_soon(AFTER_ALLOCATION)  # who holds a card is shown at once, not in 10 s
