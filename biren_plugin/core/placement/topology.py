"""Which cards of a node are close to each other, in a form for choosing (`core/placement/choose`)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import attrs

from biren_plugin.core.placement.pair_scores import Pair

Scores = Sequence[Sequence[int]]
"""The score of each pair of units, by their places in a list of units; symmetric."""


@attrs.frozen
class Branch:
    """A part of a tree: units in different parts below it all have the same score."""

    score: int
    """The score of two units in different parts; 0 if there are none."""
    leaves: tuple[int, ...] = ()
    """Units directly below."""
    branches: tuple["Branch", ...] = ()
    """Branches below, each with at least two units."""


@attrs.frozen(eq=False)  # an unchanged topology is the same object, and quickly compared
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
