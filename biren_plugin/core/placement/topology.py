"""Which cards of a node are close to each other, in a form for choosing (`core/placement/choose`).

A topology is built when its inputs change, never on request. For each pair, the library's link and common
ancestor count if it reports them; sysfs fills in the rest.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import attrs

from biren_plugin.core.parse.brml import CommonAncestor, P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.sysfs import card_number
from biren_plugin.core.placement.pair_scores import Pair, Place, pair_in_sysfs
from biren_plugin.records import frozen

Scores = Sequence[Sequence[int]]
"""The score of each pair of units, by their places in a list of units; symmetric."""


@frozen
class Branch:
    """A part of a tree: units in different parts below it all have the same score."""

    score: int
    """The score of two units in different parts; 0 if there are none."""
    leaves: tuple[int, ...] = ()
    """Units directly below."""
    branches: tuple["Branch", ...] = ()
    """Branches below, each with at least two units."""


# An unchanged topology is the same object, and quickly compared.
@attrs.frozen(eq=False, repr=False)
class Topology:
    """The units of a node and how close each two are."""

    units: tuple[str, ...] = ()
    """Device ids, by number."""
    numa_nodes: tuple[int | None, ...] = ()
    pairs: tuple[tuple[Pair, ...], ...] = ()
    """Row and column are places in `units`; the diagonal has no meaning."""
    scores: Scores = ()
    """The score of each of `pairs`."""
    place: Mapping[str, int] = attrs.Factory(dict)
    """The place of each id in `units`."""
    tree: Branch | None = None
    """None if the scores do not form a tree."""

    def side_by_side(self) -> list[str]:
        """The units with close ones next to each other: those that part late in the tree."""
        if self.tree is None:
            return list(self.units)
        return [self.units[unit] for unit in _flatten(self.tree)]

    def describe(self, ids: Iterable[str]) -> str:
        """Return how close these units are, by the two farthest apart; empty for fewer than two."""
        places = [self.place[each] for each in ids if each in self.place]
        pairs = [self.pairs[one][two] for one, two in itertools.combinations(places, 2)]
        return min(pairs, key=lambda pair: pair.score).words if pairs else ""


NO_TOPOLOGY = Topology()


def _flatten(branch: Branch) -> list[int]:
    parts = [[leaf] for leaf in branch.leaves] + [_flatten(each) for each in branch.branches]
    return [unit for part in sorted(parts) for unit in part]


def tree_of(units: Sequence[int], scores: Scores) -> Branch | None:
    """Return the tree in which the score of two units is that of their closest common branch, or None.

    The root has the lowest score of all pairs. The units closer to the first unit than that form one part;
    the rest is divided in the same way. It is a tree if every pair across parts has exactly the root's
    score, and each part is a tree.
    """
    if len(units) < 2:
        return Branch(0, tuple(units))
    lowest = min(scores[units[0]][unit] for unit in units[1:])
    leaves, branches = [], []
    rest = list(units)
    while rest:
        row = scores[rest[0]]
        side = [unit for unit in rest if unit == rest[0] or row[unit] > lowest]
        apart = [unit for unit in rest if unit != rest[0] and row[unit] <= lowest]
        if any(scores[one][two] != lowest for one in side for two in apart):
            return None
        if len(side) == 1:
            leaves += side
        elif (below := tree_of(side, scores)) is not None:
            branches.append(below)
        else:
            return None
        rest = apart
    return Branch(lowest, tuple(leaves), tuple(branches))


def build_topology(
    cards: Iterable[Card],
    links: Mapping[tuple[int, int], P2PLink] = {},
    ancestors: Mapping[tuple[int, int], CommonAncestor] = {},
) -> Topology:
    """Return the topology of these cards; `links` and `ancestors` are by node ids, the lower first.

    Of two cards with one name the later counts. A VFIO group has no node id: only its place in the PCI tree
    counts.
    """
    ordered = sorted({card.name: card for card in cards}.values(), key=lambda card: card.number)
    at = {card_number(card.name): place for place, card in enumerate(ordered)}
    rows = _rows_from_sysfs(ordered)
    for one, two in links.keys() | ancestors.keys():
        if one in at and two in at:
            row, column = at[one], at[two]
            pair = rows[row][column]
            rows[row][column] = rows[column][row] = attrs.evolve(
                pair,
                link=links.get((one, two)),
                ancestor=ancestors.get((one, two), pair.ancestor),
            )
    scores = [[pair.score for pair in row] for row in rows]
    return Topology(
        units=tuple(card.name for card in ordered),
        numa_nodes=tuple(card.numa_node for card in ordered),
        pairs=tuple(map(tuple, rows)),
        scores=scores,
        place={card.name: place for place, card in enumerate(ordered)},
        tree=tree_of(range(len(ordered)), scores),
    )


def _rows_from_sysfs(cards: Sequence[Card]) -> list[list[Pair]]:
    """Return the scores by sysfs. Instances of one GPU share its place, so each pair of places is scored once."""
    places = list(dict.fromkeys(map(_place, cards)))
    below = [[pair_in_sysfs(one, two) for two in places[: n + 1]] for n, one in enumerate(places)]
    table = [
        [below[max(one, two)][min(one, two)] for two in range(len(places))]
        for one in range(len(places))
    ]
    number = {place: n for n, place in enumerate(places)}
    of_card = [number[_place(card)] for card in cards]
    return [[table[one][two] for two in of_card] for one in of_card]


class TopologyKeeper:
    """Builds a topology when its inputs have changed; otherwise returns the last one."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._links: Mapping[tuple[int, int], P2PLink] = {}
        self._ancestors: Mapping[tuple[int, int], CommonAncestor] = {}
        self._latest = NO_TOPOLOGY

    def update(
        self,
        cards: Iterable[Card],
        links: Mapping[tuple[int, int], P2PLink] = {},
        ancestors: Mapping[tuple[int, int], CommonAncestor] = {},
    ) -> Topology:
        """Return the topology of these cards; `links` and `ancestors` as in `build_topology`."""
        by_name = {card.name: card for card in cards}
        places = {name: _place(card) for name, card in by_name.items()}
        # Many scans come with the same round: only a different round is compared.
        told_anew = (links is not self._links and links != self._links) or (
            ancestors is not self._ancestors and ancestors != self._ancestors
        )
        if told_anew or places != self._places:
            self._latest = build_topology(by_name.values(), links, ancestors)
        self._places, self._links, self._ancestors = places, links, ancestors
        return self._latest


def _place(card: Card) -> Place:
    return Place(card.physical_id, card.pci_path, card.numa_node)
