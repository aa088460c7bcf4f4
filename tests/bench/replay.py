"""The value of choosing: the same 10,000 pods come and go under three ways to choose.

No daemon, no wire: `choose` itself, the lowest free numbers, and chance. A pod that finds too few
free cards does not wait and is not counted; the three get the same pods in the same order.
"""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from biren_plugin.core.parse.brml import P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.choose import choose
from biren_plugin.core.placement.topology import Topology, build_topology
from tests.bench.figures import Figure

PODS: Final = 10_000
_GROUP: Final = 4
EIGHT_WHOLE: Final = dict.fromkeys(range(8), 1)
MIXED: Final = {0: 2, 1: 4, 2: 2, 3: 4, 4: 2, 5: 4, 6: 2, 7: 4}
_SIZES: Final = (1, 1, 1, 2, 2, 4)
"""Of pods, as likely as they are often here."""
_LIFE: Final = 4
"""Pods that come, on the average, before one goes."""

Way = Callable[[Topology, Sequence[str], int, random.Random], list[str]]


def _ours(topology: Topology, free: Sequence[str], size: int, _chance: random.Random) -> list[str]:
    return choose(topology, free, (), size)


def _first_fit(
    topology: Topology, free: Sequence[str], size: int, _chance: random.Random
) -> list[str]:
    return sorted(free, key=topology.place.__getitem__)[:size]


def _at_random(
    topology: Topology, free: Sequence[str], size: int, chance: random.Random
) -> list[str]:
    return chance.sample(sorted(free, key=topology.place.__getitem__), size)


WAYS: Final[Mapping[str, Way]] = {
    "ours": _ours, "first fit": _first_fit, "random": _at_random,
}  # fmt: skip


@attrs.define
class _Counters:
    links: int = 0
    pairs: int = 0
    fours: int = 0
    whole: int = 0
    """Pods of four that got all of a group, or all of a GPU."""


def measure_replay() -> list[Figure]:
    """Rows for both nodes."""
    figures = []
    for name, splits in [("8 whole GPUs", EIGHT_WHOLE), ("halves and quarters", MIXED)]:
        for way in WAYS:
            counters = _replay(_cards(splits), WAYS[way])
            score = counters.links / counters.pairs
            share = counters.whole / counters.fours * 100
            figures += [
                Figure(f"{name}, {way}: mean link score of a pair", "", score),
                Figure(f"{name}, {way}: pods of 4 in one piece", "%", share),
            ]
    return figures


def _cards(splits: Mapping[int, int]) -> list[Card]:
    """GPUs in groups of four, with so many instances each."""
    gpus = [gpu for gpu, parts in splits.items() for _ in range(parts)]
    return [
        Card(f"card_{number}", number, gpu, split=splits[gpu], numa_node=gpu // _GROUP)
        for number, gpu in enumerate(gpus)
    ]


def _replay(cards: Sequence[Card], way: Way) -> _Counters:
    chance = random.Random(6)
    links = {
        (one.number, two.number): P2PLink.DIRECT if one.numa_node == two.numa_node else P2PLink.NONE
        for one, two in itertools.combinations(cards, 2)
    }
    topology = build_topology(cards, links)
    card = {each.name: each for each in cards}
    free = {each.split or 1: {c.name for c in cards if c.split == each.split} for each in cards}
    running: list[tuple[int, list[str]]] = []
    counters = _Counters()
    for _ in range(PODS):
        split, size = chance.choice(sorted(free)), chance.choice(_SIZES)
        if running and chance.random() < len(running) / _LIFE:
            back, ids = running.pop(chance.randrange(len(running)))
            free[back].update(ids)
        # Every way draws the same pods: its own random numbers come from another generator.
        draws = random.Random(chance.random())
        if len(free[split]) < size:
            continue
        chosen = way(topology, list(free[split]), size, draws)
        free[split].difference_update(chosen)
        running.append((split, chosen))
        _count(counters, [card[each] for each in chosen], topology)
    return counters


def _count(counters: _Counters, chosen: Sequence[Card], topology: Topology) -> None:
    for one, two in itertools.combinations(chosen, 2):
        pair = topology.pairs[topology.place[one.name]][topology.place[two.name]]
        counters.pairs += 1
        counters.links += (
            (P2PLink.DIRECT if pair.same_gpu else pair.link or P2PLink.NONE) + 1
        ) ** 2
    if len(chosen) == _GROUP:
        counters.fours += 1
        groups = {each.numa_node for each in chosen}
        gpus = {each.physical_id for each in chosen}
        parts = chosen[0].split or 1
        counters.whole += len(groups) == 1 and len(gpus) == _GROUP // parts
