"""A node under HAMi in this process: the plugin in its mode, a kubelet's admission, the stand-in scheduler.

The API server is in threads, so these tests run in real time; each wait ends with what it waited for.
"""

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import trio

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse.card import Card
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.doubtful_cards import DoubtfulCards
from biren_plugin.device_plugin.node import Streams
from biren_plugin.device_plugin.plugin_server import DevicePlugin, watch_devices
from biren_plugin.errors import RequestRefused
from biren_plugin.hami.hami_mode import HamiMode
from tests.support.api_server import StandInApiServer
from tests.support.cards import GPU
from tests.support.hami_books import Wish
from tests.support.hami_scheduler import HamiScheduler

PATIENCE = 10.0


async def until(is_so: Callable[[], object]) -> None:
    """Wait for a condition that another thread changes."""
    with trio.fail_after(PATIENCE):
        while not is_so():  # noqa: ASYNC110 - it is another thread's state, not an event
            await trio.sleep(0.005)


def inventory_of(cards: Iterable[int], *faulty: int) -> Inventory:
    """Whole cards, four to a NUMA node."""
    devices = [
        Device(
            Card(f"card_{number}", number, number, memory=65024 * 1024**2, numa_node=number // 4),
            GPU,
            reasons=("3 ECC errors",) if number in faulty else (),
        )
        for number in cards
    ]
    return Inventory((DeviceList(GPU, tuple(devices)),))


class HamiNode:
    """The node `n1` with eight cards."""

    def __init__(self, api: StandInApiServer, folder: Path) -> None:
        self.api = api
        self.scheduler = HamiScheduler(api)
        self.settings = Settings(hami=True, kubeconfig=api.kubeconfig(folder), node_name="n1")
        self.kubelet: dict[str, list[set[str]]] = {}
        """The cards that the kubelet gave to each pod, by container."""
        self.containers: dict[str, list[set[str]]] = {}
        """The cards whose device nodes each container was given."""
        self._random = random.Random(7)
        self._inventory = Inventory()
        self._new_daemon()

    def _new_daemon(self) -> None:
        self.state = DaemonState()
        self.mode = HamiMode(self.settings, self.state)
        self.plugin = DevicePlugin(
            self.mode.cards.offered,
            self.state.inventory,
            lambda: watch_devices(self.mode.cards.offered, Board[Streams]()),
            "packed",
            edits_for,
            DoubtfulCards(GPU, self.state),
            self.mode.cards,
        )

    @property
    def hami(self) -> HamiState:
        assert self.state.hami is not None
        return self.state.hami

    def see(self, inventory: Inventory) -> None:
        """The host shows these cards."""
        self._inventory = inventory
        self.state.inventory.post(inventory)
        found = inventory.list_of(GPU)
        if found is not None:
            self.mode.cards.offered.post(found)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[trio.CancelScope]:
        """A daemon for the length of the block, which ends as by SIGTERM."""
        self._new_daemon()
        self.see(self._inventory if self._inventory.lists else inventory_of(range(8)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.mode.run)
            yield nursery.cancel_scope
            nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def registered(self) -> AsyncIterator[trio.CancelScope]:
        """The same, once HAMi knows the node."""
        if "/api/v1/nodes/n1" not in self.api.objects:
            self.scheduler.add_node()
        async with self.running() as scope:
            await until(lambda: self.hami.registered)
            self.scheduler.tick()
            yield scope

    async def run_pod(self, name: str, wish: Wish) -> None:
        """Creates a pod, and brings it to its containers. Raises `RequestRefused`."""
        assert self.scheduler.run_pod(name, wish) == "bound"
        await self.admit(name, wish)

    async def admit(self, name: str, wish: Wish) -> None:
        """The kubelet admits a pod, as its device manager does. Raises `RequestRefused`."""
        mine = self.kubelet[name] = []
        given = self.containers[name] = []
        reusable: set[str] = set()
        try:
            for place, size in enumerate(wish.in_order):
                ids = await self._choose(size, reusable)
                given.append(await self._allocate(ids))
                mine.append(ids)
                reusable = reusable | ids if place < len(wish.init) else reusable - ids
        except RequestRefused:
            self.forget(name)
            self.scheduler.set_status(name, phase="Failed", startTime="now")
            raise
        self.scheduler.set_status(name, phase="Running", startTime="now")

    async def _choose(self, size: int, reusable: set[str]) -> set[str]:
        chosen = self._random.sample(sorted(reusable), len(reusable))[:size]
        if len(chosen) == size:
            return set(chosen)
        held = {card for entries in self.kubelet.values() for each in entries for card in each}
        found = self._inventory.list_of(GPU)
        assert found is not None
        healthy = {each.id for each in found.devices if each.healthy}
        free = sorted((healthy - held) | set(chosen))
        request = PreferenceRequest(tuple(free), tuple(chosen), size)
        (hint,) = await self.plugin.prefer([request])
        others = [each for each in hint if each in free and each not in chosen]
        others += [each for each in free if each not in chosen and each not in others]
        return {*chosen, *others[: size - len(chosen)]}

    async def _allocate(self, ids: set[str]) -> set[str]:
        if not ids:
            return set()
        (edits,) = await self.plugin.allocate([sorted(ids)])
        return {each.rpartition("/")[2] for each in edits.device_nodes}

    def forget(self, name: str) -> None:
        """The kubelet no longer has a pod."""
        self.kubelet.pop(name, None)
        self.containers.pop(name, None)

    def agrees(self) -> bool:
        """Whether HAMi's record, the kubelet's and the containers' name the same cards."""
        return all(
            [set(each) for each in self.scheduler.record[name]] == mine == self.containers[name]
            for name, mine in self.kubelet.items()
        )
