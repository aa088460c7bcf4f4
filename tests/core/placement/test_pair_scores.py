"""The PCI tree and the library show how close two cards are, on one scale."""

import itertools

import pytest

from biren_plugin.core.parse.brml import CommonAncestor, P2PLink
from biren_plugin.core.placement.pair_scores import (
    LINK_WEIGHT,
    SAME_GPU,
    Pair,
    Place,
    pair_in_sysfs,
)

SWITCH = ("pci0000:00", "0000:00:01.0", "0000:01:00.0")
"""Root bus, root port, the switch's port upwards."""
FIRST = Place(0, (*SWITCH, "0000:02:00.0", "0000:03:00.0"), 0)


@pytest.mark.parametrize(
    ("other", "ancestor"),
    [
        (Place(1, (*SWITCH, "0000:02:01.0", "0000:04:00.0"), 0), CommonAncestor.PCIE_SWITCH),
        (
            Place(1, (*SWITCH, "0000:02:01.0", "0000:05:00.0", "0000:06:00.0", "0000:07:00.0"), 0),
            CommonAncestor.PCIE_SWITCHES,
        ),
        (Place(1, (*SWITCH[:2], "0000:08:00.0"), 0), CommonAncestor.PCIE_SWITCHES),
        (Place(1, (SWITCH[0], "0000:00:02.0", "0000:08:00.0"), 0), CommonAncestor.HOST_BRIDGE),
        (Place(1, (SWITCH[0], "0000:00:02.0", "0000:08:00.0")), CommonAncestor.HOST_BRIDGE),
        (Place(1, (SWITCH[0], "0000:00:02.0", "0000:08:00.0"), 1), CommonAncestor.SYSTEM),
        (Place(1, ("pci0000:80", "0000:80:01.0", "0000:81:00.0"), 0), CommonAncestor.NUMA_NODE),
        (Place(1, ("pci0000:80", "0000:80:01.0", "0000:81:00.0"), 1), CommonAncestor.SYSTEM),
        (Place(1, (), 0), CommonAncestor.NUMA_NODE),
        (Place(1), CommonAncestor.SYSTEM),
    ],
)
def test_the_common_ancestor_is_where_the_pci_paths_part(
    other: Place, ancestor: CommonAncestor
) -> None:
    pair = pair_in_sysfs(FIRST, other)
    assert pair == pair_in_sysfs(other, FIRST) == Pair(ancestor)


def test_functions_of_one_root_port_share_no_switch() -> None:
    one, two = (Place(gpu, (*SWITCH[:2], f"0000:0{gpu}:00.0"), 0) for gpu in (1, 2))
    assert pair_in_sysfs(one, two) == Pair(CommonAncestor.PCIE_SWITCHES)


def test_three_steps_below_the_shared_part_are_more_than_one_switch() -> None:
    beyond = Place(1, (*SWITCH, "0000:02:01.0", "0000:05:00.0", "0000:06:00.0"), 0)
    assert pair_in_sysfs(FIRST, beyond) == Pair(CommonAncestor.PCIE_SWITCHES)


def test_instances_of_a_gpu_are_recognised_by_its_id_or_else_by_its_address() -> None:
    assert pair_in_sysfs(FIRST, FIRST).same_gpu
    assert pair_in_sysfs(Place(3), Place(3)).same_gpu
    assert pair_in_sysfs(Place(None, FIRST.pci_path), FIRST).same_gpu
    assert not pair_in_sysfs(Place(1, FIRST.pci_path), FIRST).same_gpu, "two ids are two GPUs"
    assert not pair_in_sysfs(Place(), Place()).same_gpu, "nothing is known"


def test_links_weigh_as_in_the_vendors_plugin_and_more_than_any_distance() -> None:
    scores = {
        link: [Pair(ancestor, link).score for ancestor in CommonAncestor]
        for link in (None, *P2PLink)
    }
    assert scores[None] == scores[P2PLink.NONE]
    for link in P2PLink:
        assert {score // LINK_WEIGHT for score in scores[link]} == {(link + 1) ** 2}
        assert all(near > far for near, far in itertools.pairwise(scores[link]))


def test_instances_of_one_gpu_are_closer_than_any_two_gpus() -> None:
    assert max(Pair(CommonAncestor.BOARD, link).score for link in P2PLink) < SAME_GPU
    assert Pair(CommonAncestor.BOARD, P2PLink.NONE, same_gpu=True).score == SAME_GPU


def test_all_distances_of_a_node_together_weigh_less_than_a_link() -> None:
    steps = Pair(CommonAncestor.BOARD).score - Pair(CommonAncestor.SYSTEM).score
    assert 1024 * 1023 // 2 * (steps + 1) < LINK_WEIGHT


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Pair(CommonAncestor.BOARD, same_gpu=True), "on one GPU"),
        (Pair(CommonAncestor.SYSTEM, P2PLink.DIRECT), "directly linked"),
        (Pair(CommonAncestor.SYSTEM, P2PLink.INDIRECT), "indirectly linked"),
        (Pair(CommonAncestor.PCIE_SWITCH, P2PLink.NONE), "behind one PCIe switch"),
        (Pair(CommonAncestor.SYSTEM), "apart"),
    ],
)
def test_a_pair_is_described_in_words(pair: Pair, words: str) -> None:
    assert pair.words == words
