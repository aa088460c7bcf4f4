"""Which units of a node a pod gets: the best possible choice, found without trying all of them.

**Which choice is best.** A choice has the requested number of units, including those that it must have.
The best one has the greatest sum of scores over its pairs (`core/placement/pair_scores`). Among equals,
the best leftover (the available units that it does not take) wins; then the lowest numbers. A leftover
is worth the whole GPUs in it first (the pairs of instances of one GPU), then the sum of scores over its
pairs: groups stay whole. Units that are not available are in use or faulty, so the GPU with the fewest
available units is the one most in use. With placement `spread`, two instances of one GPU have a negative
score, in the choice and in the leftover.

**Why one number is enough.** All three criteria are sums: over the chosen pairs, over the pairs left
over, and over the units (each unit is one bit, the lowest number the highest bit). `_Ask` shifts them
into one integer, far enough apart that no sum reaches the next. The greater integer is the better
choice, and its lowest bits are the chosen units.

**Why the tree makes it exact.** In a tree, the score of two units is that of their closest common branch. So
for the rest of the tree, a choice below a branch only differs by *how many* units it has: for each
number only the best choice is kept (`_Table`). Two parts of a branch with x and y chosen units add x * y
pairs of the branch's score to the choice, and their leftovers add pairs in the same way. So the best
choice of t units is the maximum, over x + y = t, of two table entries plus those pairs (`_merge`). Units
directly below a branch are equal, so the lowest numbers go first (`_alike`). Bottom-up, this takes at
most one step for each two units of the node, and no subset is tried.

Scores that do not form a tree are left to `core/placement/pair_search`.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple

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
    """Return the best `size` units of `available`, including all of `must_include`, by number.

    All ids must be in the topology; `size` is at least the number of `must_include`, and at most that of
    all units.
    """
    place = topology.place
    must = frozenset(place[each] for each in must_include)
    units = sorted(must.union(place[each] for each in available))
    if size == len(units):
        return [topology.units[unit] for unit in units]
    ask = _Ask(units, must, size, placement)
    # Scores that do not form a tree as a whole may form one over these units.
    tree = topology.tree or tree_of(units, topology.scores)
    if tree is not None:
        [best] = _table(tree, ask).best
    else:
        best = _by_pairs(topology.scores, ask)
    return [topology.units[unit] for unit in units if best & ask.bit[unit]]


class _Ask:
    """One request, and the values of pairs and units in its one integer."""

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
        """Return the value of a pair with that score if both units are chosen."""
        if self._spread and score == SAME_GPU:
            score = self._together
        return score << self._near_shift

    def left(self, score: int) -> int:
        """Return the value of a pair with that score if both units are left over."""
        return (self._together if score == SAME_GPU else score) << self._left_shift


class _Table(NamedTuple):
    """The best choices below one branch, for each number of units that can matter."""

    least: int
    """The number of units in the first choice: at least those that must be in it."""
    most: int
    """The number of units to choose from."""
    best: list[int]
    """The choices of `least` units, `least + 1`, and so on, up to the requested number."""


def _table(branch: Branch, ask: _Ask) -> _Table:
    near, left = ask.near(branch.score), ask.left(branch.score)
    table = _alike([unit for unit in branch.leaves if unit in ask.bit], near, left, ask)
    for part in branch.branches:
        table = _merge(table, _table(part, ask), near, left, ask)
    return table


def _alike(units: Sequence[int], near: int, left: int, ask: _Ask) -> _Table:
    """Return the table of units directly below a branch: required units first, then the lowest numbers."""
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
    """Return the table of two parts of a branch: the best division of each number between them."""
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
    """Return the same integer for scores that form no tree.

    The leftover follows from the choice: a chosen unit removes its pairs with all others from the
    leftover, so a chosen pair is removed twice.
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
