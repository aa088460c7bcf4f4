"""The opt-in resource for monitoring: one device, with which a container gets the nodes of all cards.

It takes no card from anybody: a container that has it and one that holds a card share that card's node. So
an exporter can watch every card while others work on them. The nodes are those of the moment of the
allocation: after a re-split the pod has to be recreated.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import ContainerEdits, VisibleDevices, edits_for
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.device_plugin.kubelet_folder import socket_name
from biren_plugin.device_plugin.node import Node, OwnSocket, ResourceMemory, Streams
from biren_plugin.device_plugin.plugin_server import CountedPlugin, serve_plugin, watch_devices
from biren_plugin.device_plugin.registration import stay_registered
from biren_plugin.device_plugin.registration_loss import watch_kubelet
from biren_plugin.errors import InvalidRequest, NotReady
from biren_plugin.notice import say

DEVICE: Final = "monitoring"
"""The id of the one device."""
LIST: Final = DeviceList(MONITORING_RESOURCE, (Device(Card(DEVICE, 0), MONITORING_RESOURCE),))


async def run_monitoring(node: Node, memory: ResourceMemory) -> None:
    """One life of the resource: ends only by failing or being cancelled."""
    memory.registered.post(False)
    memory.offered.post(LIST)
    path = node.path / socket_name(MONITORING_RESOURCE)
    streams = Board[Streams]()
    counters = node.state.counters

    def on_sent(_devices: DeviceList) -> None:
        counters.list_sent(MONITORING_RESOURCE)

    plugin = MonitoringPlugin(
        partial(watch_devices, memory.offered, streams, on_sent),
        node.state.inventory,
        node.visible_devices,
    )
    counted = CountedPlugin(plugin, MONITORING_RESOURCE, counters)
    async with trio.open_nursery() as nursery:
        socket = OwnSocket(path, await nursery.start(serve_plugin, path, counted, node.thread))
        nursery.start_soon(watch_kubelet, socket, node)
        nursery.start_soon(stay_registered, MONITORING_RESOURCE, socket, node, memory, streams)


class MonitoringPlugin:
    """Answers with everything that the node has at that moment."""

    def __init__(
        self,
        watch: Callable[[], AsyncGenerator[DeviceList, None]],
        inventory: Board[Inventory],
        visible: VisibleDevices,
    ) -> None:
        self.watch = watch
        self._inventory = inventory
        self._visible = visible

    async def prefer(self, requests: Sequence[PreferenceRequest]) -> list[list[str]]:
        """Return the one device for each container that asks for it."""
        return [list(each.available[: each.size]) for each in requests]

    async def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerEdits]:
        """Return all present cards for each container. Raises `InvalidRequest` and `NotReady`."""
        inventory = self._inventory.latest or Inventory()
        cards = {
            device.card.name: device.card
            for each in inventory.lists
            for device in each.devices
            if device.card.present
        }
        answers = []
        for request in requests:
            if set(request) - {DEVICE}:
                raise InvalidRequest(f"{', '.join(request)}: {MONITORING_RESOURCE} has one device")
            if request and not cards:
                raise NotReady("the node has no card to monitor; delete the pod once it has")
            chosen = list(cards.values()) if request else []
            answers.append(edits_for(chosen, inventory.host, self._visible))
            text = f"{MONITORING_RESOURCE}: allocated the nodes of {len(chosen)} cards"
            say("allocated", text, resource=MONITORING_RESOURCE, cards=tuple(cards))
        return answers
