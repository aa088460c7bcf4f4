"""One life of a resource: its start order, what it sends to the kubelet, and what ends it.

The mock clock jumps whenever nothing is left to do. That goes with these Unix sockets, because both
ends are in this process: what one end has written is there for the other at once.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from purerpc import FailedPreconditionError, InvalidArgumentError
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.observed import Holder, KubeletView
from biren_plugin.core.parse.card import Card
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.kubelet_folder import (
    KubeletFolder,
    read_kubelet_folder,
    socket_name,
)
from biren_plugin.device_plugin.node import Node, ResourceMemory
from biren_plugin.device_plugin.resource import run_resource
from biren_plugin.errors import (
    KubeletRestarted,
    PluginSocketGone,
    RegistrationLost,
    SocketUnusable,
    StartTooSlow,
)
from biren_plugin.simulate.kubelet import SimulatedKubelet
from biren_plugin.wire.device_plugin import PluginClient
from biren_plugin.wire.messages import ListedDevice
from biren_plugin.wire.unix_grpc import CallEnded, Channel, with_channel
from tests.support.clocks import settled

RESOURCE = "birentech.com/1-2-gpu"


def inventory_of(*devices: Device) -> Inventory:
    return Inventory((DeviceList(RESOURCE, devices),))


CARD_0 = Device(Card("card_0", 0, numa_node=1), RESOURCE)
CARD_1 = Device(Card("card_1", 1), RESOURCE)
BOTH = inventory_of(CARD_0, CARD_1)
ONE_PULLED = inventory_of(CARD_0, CARD_1.because("its node is missing"))


class Stage:
    """The inputs of a resource's life, a kubelet, and the lists it received."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Board[KubeletFolder]()
        self.inventory = Board[Inventory]()
        self.offered = Board[DeviceList]()
        self.kubelet = SimulatedKubelet(path)
        self.socket = path / socket_name(RESOURCE)
        self.state = DaemonState(inventory=self.inventory)
        self.memory = ResourceMemory(offered=self.offered)

    async def live(self) -> None:
        """Run one life, which ends only by raising; two hours at most."""
        with trio.fail_after(7200):
            await run_resource(RESOURCE, Node(self.path, self.folder, self.state), self.memory)

    def look(self) -> None:
        """Post the directory's content, as the daemon's watcher does."""
        self.folder.post(read_kubelet_folder(self.path))

    @contextlib.asynccontextmanager
    async def running(self, inventory: Inventory = BOTH) -> AsyncIterator[trio.CancelScope]:
        """A kubelet, and one life that it has a list from; the scope that ends that life."""
        self.inventory.post(inventory)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.kubelet.run)
            self.look()
            async with trio.open_nursery() as life:
                life.start_soon(self.live)
                with trio.fail_after(60):
                    await self.kubelet.view.wait_for(lambda view: RESOURCE in view.devices)
                yield life.cancel_scope
                life.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def sees(self, *devices: ListedDevice) -> None:
        """Wait until the kubelet's last list is this one."""
        with trio.fail_after(60):
            await self.kubelet.view.wait_for(lambda view: view.devices.get(RESOURCE) == devices)


@pytest.fixture
async def node(path: Path) -> Stage:
    return Stage(path)


def test_the_socket_is_named_after_its_resource() -> None:
    assert socket_name("birentech.com/gpu") == "birentech.com-gpu.sock"


async def test_the_socket_listens_only_once_there_are_verdicts(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.live)
        await settled()
        assert not node.socket.exists()
        node.inventory.post(BOTH)
        await settled()
        async with await trio.open_unix_socket(node.socket):
            pass
        nursery.cancel_scope.cancel()


async def test_a_resource_is_served_without_a_kubelet(
    node: Stage, autojump_clock: MockClock
) -> None:
    node.inventory.post(BOTH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.live)
        await trio.sleep(3600)
        assert node.socket.is_socket()
        nursery.cancel_scope.cancel()


async def test_a_life_without_a_first_verdict_is_too_slow(
    node: Stage, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(StartTooSlow, match="did not start in 10 s.*; see `uptime` and")
    ):
        await node.live()
    assert not node.socket.exists()


async def test_a_directory_that_cannot_hold_a_socket_ends_the_life_with_the_reason(
    node: Stage, autojump_clock: MockClock
) -> None:
    node.inventory.post(BOTH)
    node.path = node.path / "gone"
    with pytest.RaisesGroup(
        pytest.RaisesExc(
            SocketUnusable,
            match="cannot write .*: No such file .*; create .*, or correct --device-plugin-dir",
        )
    ):
        await node.live()


async def test_the_kubelet_gets_the_list_and_every_change(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.sees(ListedDevice("card_0", True, (1,)), ListedDevice("card_1", True))
        node.inventory.post(ONE_PULLED)
        await node.sees(ListedDevice("card_0", True, (1,)), ListedDevice("card_1", False))
        node.inventory.post(inventory_of(CARD_0))
        await node.sees(ListedDevice("card_0", True, (1,)))
        node.inventory.post(inventory_of())
        await node.sees()


async def test_a_pod_gets_only_healthy_cards(node: Stage, autojump_clock: MockClock) -> None:
    async with node.running(ONE_PULLED):
        pod = await node.kubelet.admit(RESOURCE, 1)
        assert pod.ids == ("card_0",)
        assert pod.edits.env == (("BR_PHY_CARDS", "card_0"),)
        assert pod.edits.device_nodes == ("/dev/biren/card_0",)


async def ask(node: Stage, *ids: str) -> None:
    """Call `Allocate` with exactly these ids, as the kubelet's client."""

    async def allocate(channel: Channel) -> None:
        await PluginClient(channel).allocate(ids)

    await with_channel(await trio.open_unix_socket(node.socket), allocate)


async def test_a_refusals_status_shows_whose_fault_it_is(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.running(ONE_PULLED):
        with pytest.raises(FailedPreconditionError, match=r"card_1 is Unhealthy: .*is missing"):
            await ask(node, "card_1")
        with pytest.raises(InvalidArgumentError, match="card_7 is not a device of this node"):
            await ask(node, "card_7")
        await ask(node, "card_0")


async def test_an_equal_list_is_sent_only_with_a_heartbeat(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.running(ONE_PULLED):
        with node.kubelet.view.subscribe() as views:
            await views.receive()
            other_reason = CARD_1.because("its node is not a character device")
            node.inventory.post(inventory_of(CARD_0, other_reason))
            await settled()
            with pytest.raises(trio.WouldBlock):
                views.receive_nowait()
            (devices,) = inventory_of(CARD_0, other_reason).lists
            node.inventory.post(Inventory((attrs.evolve(devices, pulse=1),)))
            with trio.fail_after(1):
                await views.receive()


async def test_a_new_life_is_not_registered_until_a_kubelet_watches(
    node: Stage, autojump_clock: MockClock
) -> None:
    node.memory.registered.post(True)  # as the last life left it
    node.inventory.post(BOTH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.live)
        await trio.sleep(10)
        assert [node.memory.registered.latest] == [False]
        nursery.cancel_scope.cancel()


async def test_the_time_of_the_last_list_is_noted(node: Stage, autojump_clock: MockClock) -> None:
    assert not node.state.counters.lists_sent
    async with node.running():
        await node.memory.registered.wait_for(bool)
        assert node.state.counters.lists_sent.keys() == {RESOURCE}


async def test_an_allocation_is_remembered_and_its_holder_is_asked_for_soon(
    node: Stage, autojump_clock: MockClock
) -> None:
    async with node.running():
        await trio.sleep(1)  # of the mock clock: the question after the registration has been asked
        await ask(node, "card_0")
        doubt = node.state.doubts.latest
        assert doubt is not None
        assert doubt.reasons == 2, "of the registration, and of the allocation"
        holders = {"card_0": Holder("default", "train"), "card_1": Holder("default", "other")}
        [(stranger, _pod)] = node.memory.rivals.unexplained(holders, learning=False)
        assert stranger == "card_1"


async def test_a_kubelet_that_counts_other_devices_than_it_was_sent_ends_the_life(
    node: Stage, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(RegistrationLost, flatten_subgroups=True):
        async with node.running():
            for _ in range(10):
                await trio.sleep(5)
                other = {RESOURCE: frozenset({"card_7"})}
                node.state.kubelet_view.post(KubeletView(trio.current_time(), {}, other))


async def test_a_deleted_socket_ends_the_life(node: Stage, autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(PluginSocketGone, flatten_subgroups=True):
        async with node.running():
            node.socket.unlink()
            node.look()
            await trio.sleep(60)


async def test_a_stopping_kubelet_ends_the_life(node: Stage, autojump_clock: MockClock) -> None:
    node.inventory.post(BOTH)
    with pytest.RaisesGroup(KubeletRestarted, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.live)
            async with trio.open_nursery() as kubelet:
                await kubelet.start(node.kubelet.run)
                node.look()
                await node.kubelet.view.wait_for(lambda view: RESOURCE in view.devices)
                await settled()
                kubelet.cancel_scope.cancel()
            await trio.sleep(60)
    assert not node.socket.exists()


async def test_the_end_of_a_life_ends_its_streams_and_removes_its_socket(
    node: Stage, autojump_clock: MockClock
) -> None:
    ended = trio.Event()

    async def watch(channel: Channel, task_status: trio.TaskStatus[None]) -> None:
        async with contextlib.aclosing(PluginClient(channel).lists()) as lists:
            with contextlib.suppress(CallEnded):
                async for _devices in lists:
                    task_status.started()
        ended.set()

    async def connect(*, task_status: trio.TaskStatus[None]) -> None:
        stream = await trio.open_unix_socket(node.socket)
        await with_channel(stream, lambda channel: watch(channel, task_status))

    async with trio.open_nursery() as nursery:
        async with node.running() as life:
            await nursery.start(connect)
            life.cancel()
        assert not node.socket.exists()
        with trio.fail_after(5):
            await ended.wait()
