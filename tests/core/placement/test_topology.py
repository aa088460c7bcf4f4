"""A topology is built from sysfs and the library, and rebuilt only when these change."""

from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.observed import LibraryRound
from biren_plugin.core.parse.brml import CommonAncestor, LibraryFacts, P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.topology import (
    Branch,
    Scores,
    Topology,
    TopologyKeeper,
    build_topology,
    tree_of,
)
from tests.support.cards import card

FOUR = [card(number, number) for number in (0, 1, 2, 10)]


NOTHING_SAID = LibraryRound(0.0, LibraryFacts(""))
LINKED = attrs.evolve(NOTHING_SAID, links={(0, 1): P2PLink.DIRECT})


def scores_of(tree: Branch, size: int) -> Scores:
    """Return the matrix of a tree."""
    scores = [[0] * size for _ in range(size)]

    def units(branch: Branch) -> Iterator[int]:
        sides = [[leaf] for leaf in branch.leaves]
        sides += [list(units(below)) for below in branch.branches]
        for side in sides:
            for other in sides:
                if side is not other:
                    for one in side:
                        for two in other:
                            scores[one][two] = branch.score
        for side in sides:
            yield from side

    assert sorted(units(tree)) == list(range(size))
    return scores


@given(st.integers(1, 9), st.data())
def test_tree_stands_for_the_matrix_that_it_was_made_of(size: int, data: st.DataObject) -> None:
    """Units parted at random, again and again, each time at a higher score."""
    scores = [[0] * size for _ in range(size)]

    def part(units: list[int], score: int) -> None:
        for one in units:
            for two in units:
                if one != two:
                    scores[one][two] = score
        sides = data.draw(st.lists(st.integers(0, 2), min_size=len(units), max_size=len(units)))
        if len(set(sides)) > 1:
            for side in set(sides):
                part([unit for unit, at in zip(units, sides, strict=True) if at == side], score + 1)

    part(list(range(size)), 1)
    tree = tree_of(range(size), scores)
    assert tree is not None
    assert scores_of(tree, size) == scores


@given(st.integers(2, 7), st.data())
def test_any_other_matrix_is_no_tree(size: int, data: st.DataObject) -> None:
    """It is one just if, of any three units, the two lowest scores are equal."""
    scores = [[0] * size for _ in range(size)]
    for one in range(size):
        for two in range(one):
            scores[one][two] = scores[two][one] = data.draw(st.integers(1, 3))
    three = [
        sorted([scores[one][two], scores[two][third], scores[one][third]])
        for one in range(size)
        for two in range(one)
        for third in range(two)
    ]
    is_tree = all(lowest == second for lowest, second, _ in three)
    assert (tree_of(range(size), scores) is not None) == is_tree


def test_equal_units_form_a_tree_of_one_branch() -> None:
    tree = build_topology([Card(f"card_{n}", n, n) for n in range(300)]).tree
    assert tree is not None
    assert (len(tree.leaves), tree.branches) == (300, ())


def test_the_library_counts_where_it_reports_and_sysfs_elsewhere() -> None:
    links = {(0, 1): P2PLink.DIRECT, (2, 10): P2PLink.NONE, (0, 99): P2PLink.DIRECT}
    ancestors = {(2, 10): CommonAncestor.PCIE_SWITCH}
    topology = build_topology(FOUR[::-1], links, ancestors)
    assert topology.units == ("card_0", "card_1", "card_2", "card_10")
    assert topology.describe(["card_1", "card_0"]) == "directly linked"
    assert topology.describe(["card_2", "card_10"]) == "behind one PCIe switch"
    assert topology.describe(["card_0", "card_2"]) == "apart"


def test_vfio_groups_are_placed_by_their_pci_path_alone() -> None:
    """Two virtual functions of one GPU, and a GPU behind the same switch."""
    above = ("pci0000:00", "0000:00:01.0", "0000:01:00.0")
    groups = [
        Card("/dev/vfio/7", 7, 0x300, pci_path=(*above, "0000:02:00.0", "0000:03:00.2")),
        Card("/dev/vfio/5", 5, 0x400, pci_path=(*above, "0000:02:01.0", "0000:04:00.0")),
        Card("/dev/vfio/6", 6, 0x300, pci_path=(*above, "0000:02:00.0", "0000:03:00.1")),
    ]
    topology = build_topology(groups, {(5, 6): P2PLink.DIRECT})
    assert topology.units == ("/dev/vfio/5", "/dev/vfio/6", "/dev/vfio/7")
    assert topology.describe(["/dev/vfio/6", "/dev/vfio/7"]) == "on one GPU"
    assert topology.describe(["/dev/vfio/5", "/dev/vfio/6"]) == "behind one PCIe switch"


def test_a_choice_is_described_by_its_two_farthest_units() -> None:
    topology = build_topology(FOUR, {(0, 1): P2PLink.DIRECT})
    assert topology.describe(["card_0", "card_1", "card_2"]) == "apart"
    assert topology.describe(["card_0"]) == topology.describe(["card_77", "card_0"]) == ""


def test_linked_units_stand_side_by_side() -> None:
    topology = build_topology(FOUR, {(0, 10): P2PLink.DIRECT, (1, 2): P2PLink.DIRECT})
    order = topology.side_by_side()
    assert sorted(order) == sorted(topology.units)
    assert abs(order.index("card_0") - order.index("card_10")) == 1
    assert abs(order.index("card_1") - order.index("card_2")) == 1


def test_one_unreported_link_affects_only_its_pair() -> None:
    all_linked = {
        (one.number, two.number): P2PLink.DIRECT
        for one in FOUR
        for two in FOUR
        if one.number < two.number
    }
    whole = build_topology(FOUR, all_linked)
    all_linked.pop((0, 10))
    less = build_topology(FOUR, all_linked)
    differing = [
        (one, two)
        for one in range(4)
        for two in range(one, 4)
        if whole.pairs[one][two] != less.pairs[one][two]
    ]
    assert differing == [(0, 3)]


@pytest.fixture
def keeper() -> TopologyKeeper:
    return TopologyKeeper()


def test_an_unchanged_topology_is_the_same_object(keeper: TopologyKeeper) -> None:
    first = keeper.update(FOUR, LINKED.links, LINKED.ancestors)
    counted = [attrs.evolve(each, aer_nonfatal=7) for each in FOUR]
    again = attrs.evolve(LINKED, at=5.0, links=dict(LINKED.links))
    assert keeper.update(counted, again.links, again.ancestors) is first


@pytest.mark.parametrize(
    ("cards", "library"),
    [
        (FOUR[:3], NOTHING_SAID),
        ([attrs.evolve(FOUR[0], numa_node=1), *FOUR[1:]], NOTHING_SAID),
        (FOUR, attrs.evolve(NOTHING_SAID, links={(0, 1): P2PLink.NONE})),
        (FOUR, attrs.evolve(NOTHING_SAID, ancestors={(0, 1): CommonAncestor.BOARD})),
    ],
)
def test_any_changed_input_makes_another_topology(
    keeper: TopologyKeeper, cards: list[Card], library: LibraryRound
) -> None:
    first = keeper.update(FOUR)
    second = keeper.update(cards, library.links, library.ancestors)
    assert second is not first
    assert isinstance(second, Topology)
