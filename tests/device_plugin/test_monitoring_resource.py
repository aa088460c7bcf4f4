"""The resource for monitoring gives a container every card, and takes none from other pods."""

from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.model import Device, DeviceList, HostFacts, Inventory
from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.core.settings import Settings
from biren_plugin.core.useless_settings import without_effect
from biren_plugin.device_plugin.kubelet_folder import (
    KUBELET_SOCKET,
    KubeletFolder,
    read_kubelet_folder,
    socket_name,
)
from biren_plugin.device_plugin.monitoring_resource import LIST, MonitoringPlugin, run_monitoring
from biren_plugin.device_plugin.node import Node, ResourceMemory
from biren_plugin.device_plugin.serving import Serving
from biren_plugin.errors import InvalidRequest, NotReady, PluginSocketGone
from biren_plugin.monitor.status import status_document
from biren_plugin.simulate.kubelet import SimulatedKubelet
from tests.support.cards import GPU, HALF, card, devices, listed
from tests.support.clocks import settled
from tests.support.daemon_states import hold, new_state

SICK = devices(GPU, 1)[0].because("it is hot")
LOST = Device(attrs.evolve(card(9), present=False), GPU, ("fell off the bus",))
LISTS = (listed(GPU, *devices(GPU, 0), SICK, LOST), listed(HALF, *devices(HALF, 2, 3)))


async def lists() -> AsyncGenerator[DeviceList, None]:
    yield LIST


def plugin(*found: DeviceList) -> MonitoringPlugin:
    inventory = Board[Inventory]()
    inventory.post(Inventory(found, host=HostFacts(control_node=True)))
    return MonitoringPlugin(lists, inventory, "none")


async def test_a_container_gets_every_present_card_healthy_or_not() -> None:
    [edits] = await plugin(*LISTS).allocate([["monitoring"]])
    assert edits.device_nodes == (
        *(f"/dev/biren/card_{number}" for number in (0, 1, 2, 3)),
        "/dev/biren-m",
    )
    assert dict(edits.env) == {"BR_PHY_CARDS": "card_0,card_1,card_2,card_3"}


async def test_a_node_without_cards_and_an_unknown_device_are_refused() -> None:
    with pytest.raises(NotReady, match="no card to monitor"):
        await plugin().allocate([["monitoring"]])
    with pytest.raises(InvalidRequest, match="gpu-monitoring has one device"):
        await plugin(*LISTS).allocate([["card_0"]])


async def test_pods_still_get_each_card_that_is_monitored(
    path: Path, autojump_clock: MockClock
) -> None:
    kubelet = SimulatedKubelet(path)
    folder = Board[KubeletFolder]()
    state = new_state()
    hold(state, listed(GPU, *devices(GPU, 0, 1)))
    async with trio.open_nursery() as nursery:
        await nursery.start(kubelet.run)
        folder.post(read_kubelet_folder(path))
        nursery.start_soon(Serving(Node(path, folder, state, monitoring=True)).run)
        with trio.fail_after(60):
            await kubelet.view.wait_for(
                lambda view: {GPU, MONITORING_RESOURCE} <= view.devices.keys()
            )
        pod = await kubelet.admit(MONITORING_RESOURCE, 1)
        assert len(pod.edits.device_nodes) == 2
        assert set((await kubelet.admit(GPU, 2)).ids) == {"card_0", "card_1"}
        shown = {each["resource"]: each for each in status_document(state)["resources"]}
        assert shown[MONITORING_RESOURCE]["registered"] is True
        assert state.counters.lists_sent.keys() == {GPU, MONITORING_RESOURCE}
        nursery.cancel_scope.cancel()


async def test_a_new_life_is_not_registered_and_ends_with_its_socket(
    path: Path, autojump_clock: MockClock
) -> None:
    node, memory = Node(path, Board[KubeletFolder](), new_state()), ResourceMemory()
    memory.registered.post(True)  # as the last life left it
    with pytest.RaisesGroup(PluginSocketGone, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_monitoring, node, memory)
            await settled()
            assert [memory.registered.latest] == [False]
            (path / KUBELET_SOCKET).touch()
            (path / socket_name(MONITORING_RESOURCE)).unlink()
            node.folder.post(read_kubelet_folder(path))
            await trio.sleep(60)
            pytest.fail("nothing serves it")


def test_where_it_has_no_effect_the_daemon_says_why() -> None:
    useless = without_effect(Settings(monitoring_resource=True, offer_by="dra"))
    assert useless["--monitoring-resource"] == "under dra, claims with adminAccess do the same"
    useless = without_effect(Settings(monitoring_resource=True, container_runtime="kata"))
    assert useless["--monitoring-resource"] == "a VFIO group cannot be shared"
    useful = without_effect(Settings(visible_devices="index"))
    assert "--visible-devices" not in useful
    useless = without_effect(Settings(visible_devices="index", container_runtime="kata"))
    assert "--visible-devices" in useless
