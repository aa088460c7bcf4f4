"""The choice is the best possible one, by an independent definition of "best" in this file.

`brute_force` tries all subsets and compares tuples: the sum of scores inside, what is left, the
numbers. It shares no code with what it judges.
"""

import itertools
from collections.abc import Callable, Collection, Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biren_plugin.core.parse.brml import CommonAncestor, P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.choose import Placement, choose
from biren_plugin.core.placement.pair_scores import Pair
from biren_plugin.core.placement.pair_search import EXACT_UP_TO
from biren_plugin.core.placement.topology import Topology, build_topology, tree_of


def placed(number: int, gpu: int) -> Card:
    """A card of a GPU; four GPUs behind one switch, each switch on a NUMA node of its own."""
    group, slot = divmod(gpu, 4)
    above = (f"pci0000:{group}0", f"0000:{group}0:00.0", f"0000:{group}1:00.0")
    below = (f"0000:{group}2:0{slot}.0", f"0000:{group}{3 + slot}:00.0")
    return Card(f"card_{number}", number, gpu, pci_path=above + below, numa_node=group)


def choose_of(
    cards: list[Card], taken: list[int], size: int, placement: Placement = "packed"
) -> list[int]:
    """The numbers of the cards that are chosen of those that are not taken."""
    free = [card.name for card in cards if card.number not in taken]
    chosen = choose(build_topology(cards), free, (), min(size, len(free)), placement)
    return [int(name.removeprefix("card_")) for name in chosen]


LINKS = st.none() | st.sampled_from(P2PLink)
ANCESTORS = st.sampled_from(CommonAncestor)
PLACEMENTS: st.SearchStrategy[Placement] = st.sampled_from(["packed", "spread"])


def topology_of(size: int, pair: Callable[[int, int], Pair]) -> Topology:
    """Units `card_0` on; `pair` is asked once for each two, the lower number first."""
    table = {both: pair(*both) for both in itertools.combinations(range(size), 2)}
    rows = [
        [
            table.get((min(one, two), max(one, two)), Pair(CommonAncestor.SYSTEM))
            for two in range(size)
        ]
        for one in range(size)
    ]
    scores = [[each.score for each in row] for row in rows]
    names = tuple(f"card_{number}" for number in range(size))
    return Topology(
        names,
        pairs=tuple(map(tuple, rows)),
        scores=scores,
        place={name: number for number, name in enumerate(names)},
        tree=tree_of(range(size), scores),
    )


def worth(
    topology: Topology, available: Collection[str], chosen: Collection[str], placement: Placement
) -> tuple[int, int, int, int, list[int]]:
    """Return the value of a choice: the greater, the better."""
    own = [topology.place[each] for each in chosen]
    left = [topology.place[each] for each in available if each not in chosen]
    inside = [topology.pairs[one][two] for one, two in itertools.combinations(own, 2)]
    outside = [topology.pairs[one][two] for one, two in itertools.combinations(left, 2)]
    sign = -1 if placement == "spread" else 1
    together = sum(pair.same_gpu for pair in inside)
    return (
        -together if placement == "spread" else 0,
        sum(pair.score for pair in inside if placement == "packed" or not pair.same_gpu),
        sign * sum(pair.same_gpu for pair in outside),
        sum(pair.score for pair in outside if not pair.same_gpu),
        sorted(-each for each in own)[::-1],
    )


def brute_force(
    topology: Topology,
    available: Collection[str],
    must: Collection[str],
    size: int,
    placement: Placement = "packed",
) -> list[str]:
    free = [each for each in topology.units if each in available and each not in must]
    best = max(
        ({*must, *more} for more in itertools.combinations(free, size - len(must))),
        key=lambda chosen: worth(topology, {*available, *must}, chosen, placement),
    )
    return [each for each in topology.units if each in best]


@st.composite
def trees(draw: st.DrawFn, most: int = 12) -> Topology:
    """Units numbered at random over NUMA nodes, switches and GPUs, with links by group or unknown."""
    size = draw(st.integers(1, most))
    gpus = draw(st.lists(st.integers(0, 7), min_size=size, max_size=size))
    in_group = draw(st.sampled_from([1, 2, 4]))
    linked = draw(st.sampled_from([None, P2PLink.INDIRECT, P2PLink.DIRECT]))
    apart = draw(st.sampled_from([None, P2PLink.NONE, P2PLink.INDIRECT]))

    def pair(one: int, two: int) -> Pair:
        ours, theirs = gpus[one], gpus[two]
        if ours == theirs:
            return Pair(CommonAncestor.BOARD, same_gpu=True)
        if ours // in_group == theirs // in_group:
            return Pair(CommonAncestor.PCIE_SWITCH, linked)
        if ours // 4 == theirs // 4:
            return Pair(CommonAncestor.NUMA_NODE, apart)
        return Pair(CommonAncestor.SYSTEM, apart)

    topology = topology_of(size, pair)
    assert topology.tree is not None or apart == P2PLink.INDIRECT
    return topology


@st.composite
def matrices(draw: st.DrawFn, most: int = 12) -> Topology:
    """Any link and any ancestor for any pair."""
    size = draw(st.integers(1, most))
    table = {
        both: Pair(draw(ANCESTORS), draw(LINKS)) for both in itertools.combinations(range(size), 2)
    }
    return topology_of(size, lambda one, two: table[one, two])


Question = tuple[Topology, list[str], list[str], int]


@st.composite
def questions(draw: st.DrawFn, topologies: st.SearchStrategy[Topology]) -> Question:
    """Draw a topology with gaps, the required units, and the size of the choice."""
    topology = draw(topologies)
    available = draw(st.lists(st.sampled_from(topology.units), unique=True))
    must = draw(st.lists(st.sampled_from(available), unique=True, max_size=3)) if available else []
    return topology, available, must, draw(st.integers(len(must), len(available)))


@given(questions(trees()), PLACEMENTS)
def test_the_choice_on_a_tree_is_the_best_of_all(question: Question, placement: Placement) -> None:
    assert choose(*question, placement) == brute_force(*question, placement)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_is_worth_most_on_many_small_nodes(seed: int) -> None:
    """Choices of equal value are common there, so the leftover decides."""
    random = Random(seed)
    for _ in range(200):
        gpus = [random.randrange(8) for _ in range(random.randint(3, 8))]
        topology = build_topology([placed(number, gpu) for number, gpu in enumerate(gpus)])
        free = random.sample(topology.units, random.randint(2, len(gpus)))
        size = random.randint(1, len(free) - 1)
        must = random.sample(free, random.choice([0, 0, 1]))
        placement: Placement = random.choice(["packed", "spread"])
        question = (topology, free, must, size)
        assert choose(*question, placement) == brute_force(*question, placement)


@given(questions(matrices()), PLACEMENTS)
def test_the_choice_on_any_matrix_is_the_best_of_all(
    question: Question, placement: Placement
) -> None:
    assert choose(*question, placement) == brute_force(*question, placement)


def tangle(seed: int, size: int) -> Topology:
    """Any link and any ancestor for any pair; almost never a tree."""
    chance = Random(seed)
    links = [None, *P2PLink]
    return topology_of(
        size, lambda _one, _two: Pair(chance.choice(list(CommonAncestor)), chance.choice(links))
    )


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_the_choice_is_the_best_of_all_up_to_the_last_exact_size(seed: int, size: int) -> None:
    topology = tangle(seed, EXACT_UP_TO)
    question = topology, topology.units, topology.units[3:5], size
    assert choose(*question) == brute_force(*question)


def vendors_measure(topology: Topology, chosen: Collection[str]) -> int:
    """The sum of (link type + 1) squared over the pairs."""
    places = [topology.place[each] for each in chosen]
    links = [topology.pairs[one][two].link or 0 for one, two in itertools.combinations(places, 2)]
    return sum((link + 1) ** 2 for link in links)


@given(questions(matrices()))
def test_the_choice_is_never_below_the_vendors_best_on_the_vendors_measure(
    question: Question,
) -> None:
    topology, available, must, size = question
    most = max(
        vendors_measure(topology, {*must, *more})
        for more in itertools.combinations(set(available) - set(must), size - len(must))
    )
    assert vendors_measure(topology, choose(*question)) == most


@given(questions(trees() | matrices(20)), PLACEMENTS, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_the_available_units(
    question: Question, placement: Placement, chance: Random
) -> None:
    topology, available, must, size = question
    chosen = choose(*question, placement)
    chance.shuffle(available)
    chance.shuffle(must)
    assert choose(topology, available, must, size, placement) == chosen


@st.composite
def large_questions(draw: st.DrawFn) -> Question:
    """More units than are searched exactly, of no tree."""
    topology = tangle(draw(st.integers(0, 10_000)), draw(st.integers(EXACT_UP_TO + 1, 24)))
    must = draw(st.lists(st.sampled_from(topology.units), unique=True, max_size=3))
    return topology, list(topology.units), must, draw(st.integers(len(must), len(topology.units)))


@settings(max_examples=20)
@given(large_questions())
def test_no_single_exchange_improves_the_choice(question: Question) -> None:
    topology, available, must, _ = question
    chosen = set(choose(*question))
    reached = worth(topology, available, chosen, "packed")
    for better in exchanges(chosen, set(available) - chosen, must):
        assert worth(topology, available, better, "packed") <= reached


@settings(max_examples=20)
@given(large_questions())
def test_the_choice_is_never_below_what_exchanges_reach_from_the_lowest_numbers(
    question: Question,
) -> None:
    topology, available, must, size = question
    climbed = {*must, *[each for each in available if each not in must][: size - len(must)]}
    while True:
        best = max(
            [climbed, *exchanges(climbed, set(available) - climbed, must)],
            key=lambda chosen: worth(topology, available, chosen, "packed"),
        )
        if best == climbed:
            break
        climbed = best
    chosen = choose(*question)
    assert worth(topology, available, chosen, "packed") >= worth(
        topology, available, climbed, "packed"
    )


def exchanges(
    chosen: set[str], outside: Iterable[str], must: Collection[str]
) -> Iterable[set[str]]:
    """Each choice in which one unit has been exchanged for another."""
    for ours, theirs in itertools.product(chosen.difference(must), list(outside)):
        yield chosen - {ours} | {theirs}


EIGHT = [placed(number, number) for number in range(8)]
"""Whole GPUs in two groups of four."""
QUARTERS = [placed(number, number // 4) for number in range(16)]
"""Four GPUs in quarters, behind one switch."""


@pytest.mark.parametrize(
    ("taken", "size", "chosen"),
    [
        ([], 2, [0, 1]),
        ([0], 2, [1, 2]),
        ([0, 1], 2, [2, 3]),
        ([0, 1, 2], 1, [3]),
        ([0, 1, 2], 2, [4, 5]),
        ([0], 4, [4, 5, 6, 7]),
        ([0, 1, 4], 2, [2, 3]),
        ([0, 1, 4], 1, [2]),
        ([0, 4], 8, [1, 2, 3, 5, 6, 7]),
    ],
)
def test_groups_of_four_stay_whole(taken: list[int], size: int, chosen: list[int]) -> None:
    assert choose_of(EIGHT, taken, size) == chosen


@pytest.mark.parametrize(
    ("taken", "size", "packed", "spread"),
    [
        ([], 2, [0, 1], [0, 4]),
        ([], 4, [0, 1, 2, 3], [0, 4, 8, 12]),
        ([5], 1, [4], [0]),
        ([5], 2, [4, 6], [0, 8]),
        ([0, 4, 5, 8, 9, 10], 1, [11], [12]),
        ([0, 4, 5, 8, 9, 10], 2, [6, 7], [1, 12]),
        ([], 5, [0, 1, 2, 3, 4], [0, 1, 4, 8, 12]),
    ],
)
def test_instances_share_the_gpu_most_in_use_or_are_spread_over_those_least_in_use(
    taken: list[int], size: int, packed: list[int], spread: list[int]
) -> None:
    assert choose_of(QUARTERS, taken, size) == packed
    assert choose_of(QUARTERS, taken, size, "spread") == spread


def test_required_units_attract_the_rest_of_the_choice() -> None:
    topology = build_topology(EIGHT)
    assert choose(topology, topology.units, ["card_6"], 2) == ["card_4", "card_6"]


def test_what_is_no_tree_as_a_whole_is_exact_where_the_free_units_are_one() -> None:
    """Linked groups of 4, 1, 3, 4 and 7 GPUs, and a taken one with a link to a single GPU of a group."""
    group = [0] * 4 + [1] + [2] * 3 + [3] * 4 + [4] * 7
    cards = [placed(number, number) for number in range(20)]
    links = {
        (one, two): P2PLink.DIRECT if group[one] == group[two] else P2PLink.NONE
        for one, two in itertools.combinations(range(19), 2)
    }
    topology = build_topology(cards, {**links, (0, 19): P2PLink.DIRECT})
    assert topology.tree is None
    free = topology.units[:19]
    chosen = choose(topology, free, [], 12)
    assert chosen == [f"card_{number}" for number in (0, 1, 2, 3, 4, *range(12, 19))]


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_is_worth_most_where_links_form_no_tree(seed: int) -> None:
    """Two kinds of pairs: choices of equal value are common, so the leftover decides."""
    random, kinds = Random(seed), (P2PLink.NONE, P2PLink.DIRECT)
    for _ in range(50):
        size = random.randint(5, 8)
        topology = topology_of(
            size, lambda _one, _two: Pair(CommonAncestor.SYSTEM, random.choice(kinds))
        )
        units = list(topology.units)
        question: Question = (topology, units, [], random.randint(2, size - 2))
        assert choose(*question) == brute_force(*question)
