"""Which units of a node a pod gets: the best choice there is, found without trying all of them.

**What is best.** Of the choices that hold what must be in them, and as many units as were asked for:
the greatest sum of scores over the pairs inside (`core/placement/pair_scores`); of these the one whose leftover,
the available units that it does not take, is worth most to the next pod; of these the one with the
lowest numbers. A leftover is worth the whole GPUs in it first (the pairs of instances of one GPU),
then the sum of scores over its pairs: groups stay whole. What is not available is in use or broken,
so the GPU with the fewest available is the one most in use. With placement `spread` two instances of
one GPU are worth less than nothing, in the choice and in the leftover.

**Why one number is enough.** All three are sums: over the pairs inside, over the pairs left, over the
units (each unit a bit of its own, the lowest number the highest bit). `_Ask` shifts them into one
integer, far enough that no sum reaches the next: the greater integer is the better choice, and its
lowest bits say which units it holds.

**Why the tree makes it exact.** In a tree the score of two units is that of the branch where they
part. So of a choice below a branch, all that the rest of the tree can see is *how many* units it
holds: for each number only the best choice has to be known (`_Table`). Two parts of a branch that
hold x and y units add x * y pairs of the branch's score to the choice, and their leftovers likewise;
so the best of t units is the best over x + y = t of two table entries and that (`_merge`). Units
directly below a branch are alike, so the lowest numbers go first (`_alike`). Bottom up this is
at most one step for each two units of the node, whatever is chosen; no subset is tried.

Scores that do not form a tree are left to `core/placement/pair_search`.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal

import attrs

from biren_plugin.core.placement.pair_scores import SAME_GPU
from biren_plugin.core.placement.pair_search import best_by_pairs
from biren_plugin.core.placement.topology import Branch, Scores, Topology, tree_of

Placement = Literal["packed", "spread"]

_DECISIVE: Final = 1 << 48
"""More than the scores of all pairs of 1024 units together."""


def choose(
    topology: Topology,
    available: Collection[str],
    must_include: Collection[str],
    size: int,
    placement: Placement = "packed",
) -> list[str]:
    """The best `size` units of `available` with all of `must_include`, by number.

    All ids must be in the topology; `size` is from the number of `must_include` to that of all.
    """
    place = topology.place
    must = frozenset(place[each] for each in must_include)
    units = sorted(must.union(place[each] for each in available))
    if size == len(units):
        return [topology.units[unit] for unit in units]
    ask = _Ask(units, must, size, placement)
    # What is no tree as a whole may be one where it matters.
    tree = topology.tree or tree_of(units, topology.scores)
    if tree is not None:
        [best] = _table(tree, ask).best
    else:
        best = _by_pairs(topology.scores, ask)
    return [topology.units[unit] for unit in units if best & ask.bit[unit]]


class _Ask:
    """One question, and what pairs and units count for in its one integer."""

    def __init__(
        self, units: Sequence[int], must: frozenset[int], size: int, placement: Placement
    ) -> None:
        self.units = units
        self.must = must
        self.size = size
        self.bit = {unit: 1 << n for n, unit in enumerate(reversed(units))}
        self._left_shift = len(units)
        self._near_shift = self._left_shift + (_DECISIVE * len(units) ** 2).bit_length()
        self._together = _DECISIVE if placement == "packed" else -_DECISIVE
        self._spread = placement == "spread"

    def near(self, score: int) -> int:
        """What a pair with that score counts for if both are chosen."""
        if self._spread and score == SAME_GPU:
            score = self._together
        return score << self._near_shift

    def left(self, score: int) -> int:
        """What it counts for if both are left."""
        return (self._together if score == SAME_GPU else score) << self._left_shift


@attrs.frozen
class _Table:
    """The best choices below one branch, for each number of units that can matter."""

    least: int
    """The number of units in the first: those that must be, and those that the rest lacks."""
    most: int
    """How many units there are to choose from."""
    best: list[int]
    """For `least` units, `least + 1`, and so on, no more than were asked for."""


def _table(branch: Branch, ask: _Ask) -> _Table:
    near, left = ask.near(branch.score), ask.left(branch.score)
    table = _alike([unit for unit in branch.leaves if unit in ask.bit], near, left, ask)
    for part in branch.branches:
        table = _merge(table, _table(part, ask), near, left, ask)
    return table


def _alike(units: Sequence[int], near: int, left: int, ask: _Ask) -> _Table:
    """Of units of which each two part here: what must be, then the lowest numbers."""
    most = len(units)
    ordered = sorted(units, key=lambda unit: (unit not in ask.must, unit))
    least = max(sum(unit in ask.must for unit in units), ask.size - (len(ask.units) - most))
    bits = sum(ask.bit[unit] for unit in ordered[:least])
    best = []
    for taken in range(least, min(most, ask.size) + 1):
        stay = most - taken
        best.append(near * (taken * (taken - 1) // 2) + left * (stay * (stay - 1) // 2) + bits)
        if stay:
            bits += ask.bit[ordered[taken]]
    return _Table(least, most, best)


def _merge(one: _Table, two: _Table, near: int, left: int, ask: _Ask) -> _Table:
    """Of two parts whose units part here: the best split of each number between them."""
    most = one.most + two.most
    lacking = ask.size - (len(ask.units) - most)
    least = max(one.least + two.least, lacking)
    best = []
    for total in range(least, min(most, ask.size) + 1):
        first = max(one.least, total - two.least - len(two.best) + 1)
        last = min(one.least + len(one.best) - 1, total - two.least)
        best.append(
            max(
                one.best[x - one.least]
                + two.best[total - x - two.least]
                + near * (x * (total - x))
                + left * ((one.most - x) * (two.most - total + x))
                for x in range(first, last + 1)
            )
        )
    return _Table(least, most, best)


def _by_pairs(scores: Scores, ask: _Ask) -> int:
    """The same integer for scores of any kind.

    What is left over follows from what is taken: a unit takes its pairs with all others out of the
    leftover, and a pair inside was taken out twice.
    """
    kinds = {score for row in scores for score in row}
    left = {score: ask.left(score) for score in kinds}
    inside = {score: ask.near(score) + ask.left(score) for score in kinds}
    worth, pairs = [], []
    for one in ask.units:
        row = scores[one]
        worth.append(ask.bit[one] - sum(left[row[two]] for two in ask.units if two != one))
        pairs.append([inside[row[two]] if two != one else 0 for two in ask.units])
    must = [n for n, unit in enumerate(ask.units) if unit in ask.must]
    chosen = best_by_pairs(worth, pairs, must, ask.size)
    return sum(ask.bit[ask.units[n]] for n in chosen)
