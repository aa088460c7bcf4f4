"""What every resource of the node shares, and what only one of them has."""

from pathlib import Path

import attrs

from biren_plugin.board import Board
from biren_plugin.core.model import DeviceList
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.node import Node
from biren_plugin.hami.hami_mode import HamiMode
from tests.support.cards import GPU, HALF, devices, listed

CARDS = devices(GPU, 0, 1)


async def test_another_scheduler_has_a_say_and_the_list_of_its_own_resource_only() -> None:
    state = DaemonState()
    cards = HamiMode(Settings(hami=True, kubeconfig=Path("none"), node_name="n1"), state).cards
    node = Node(Path("plugins"), Board(), state, scheduler=cards)
    assert (node.scheduler_of(GPU), node.scheduler_of(HALF)) == (cards, None)
    assert node.memory_of(GPU).offered is cards.offered
    others: Board[DeviceList] = node.memory_of(HALF).offered
    assert others is not cards.offered
    assert Node(Path("plugins"), Board(), state).scheduler_of(GPU) is None


def test_a_list_without_numa_nodes_is_otherwise_the_same() -> None:
    shown = [attrs.evolve(each, card=attrs.evolve(each.card, numa_node=1)) for each in CARDS]
    assert listed(GPU, *shown).without_numa_nodes() == listed(GPU, *CARDS)
