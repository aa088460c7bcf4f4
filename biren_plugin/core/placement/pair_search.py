"""The best choice for units and pairs of any value, without a structure to use.

The value of a choice is the sum over its units and over its pairs. Up to `EXACT_UP_TO` units the best
choice is found. For more, no exchange of one unit for another improves the result, and it is never worse
than the lowest numbers improved by such exchanges, the best one at each step. `_EXCHANGES` limits their
number; no node that was tried needs that many.
"""

import heapq
from collections.abc import Sequence
from typing import Final

Worth = Sequence[int]
"""The value of each unit."""
Pairs = Sequence[Sequence[int]]
"""The value of each pair of units; symmetric, 0 on the diagonal."""

EXACT_UP_TO: Final = 16
_SEEDS: Final = 256
"""A choice is grown from this many units, divided by the number of units, besides the lowest numbers."""
_EXCHANGES: Final = 4
"""The greatest number of exchanges for each unit of a choice, so that the search ends in any case."""


def best_by_pairs(worth: Worth, pairs: Pairs, must: Sequence[int], size: int) -> set[int]:
    """Return the `size` units, fewer than all, with the greatest value, including all of `must`."""
    found = _by_exchange(worth, pairs, must, size)
    if len(worth) <= EXACT_UP_TO:
        found = _Search(worth, pairs, must, size, found).best
    return found


def _value(chosen: set[int], worth: Worth, pairs: Pairs) -> int:
    inside = sum(pairs[one][two] for one in chosen for two in chosen)
    return sum(worth[unit] for unit in chosen) + inside // 2


def _gains(chosen: set[int], worth: Worth, pairs: Pairs) -> list[int]:
    """Return what each unit adds, or would add, to the rest of the choice."""
    return [own + sum(row[unit] for unit in chosen) for own, row in zip(worth, pairs, strict=True)]


def _by_exchange(worth: Worth, pairs: Pairs, must: Sequence[int], size: int) -> set[int]:
    free = [unit for unit in range(len(worth)) if unit not in must]
    lacking = size - len(must)
    starts = [{*must, *free[:lacking]}]
    if lacking:
        step = -(-(len(free) ** 2) // _SEEDS)
        starts += [_grown({*must, seed}, worth, pairs, size) for seed in free[::step]]
    for start in starts:
        _exchange(start, worth, pairs, must)
    return max(starts, key=lambda chosen: _value(chosen, worth, pairs))


def _grown(chosen: set[int], worth: Worth, pairs: Pairs, size: int) -> set[int]:
    """Return the choice with further units, at each step the one that adds most."""
    gains = _gains(chosen, worth, pairs)
    while len(chosen) < size:
        unit = max(
            (each for each in range(len(worth)) if each not in chosen), key=gains.__getitem__
        )
        chosen.add(unit)
        gains = [gain + pair for gain, pair in zip(gains, pairs[unit], strict=True)]
    return chosen


def _exchange(chosen: set[int], worth: Worth, pairs: Pairs, must: Sequence[int]) -> None:
    """Exchange one unit for another, the best exchange first, until none improves the choice."""
    gains = _gains(chosen, worth, pairs)
    for _ in range(_EXCHANGES * len(chosen)):
        outside = [unit for unit in range(len(worth)) if unit not in chosen]
        best, given, taken = 0, 0, 0
        for unit in chosen.difference(must):
            row = pairs[unit]
            more = [gains[other] - row[other] for other in outside]
            if (change := max(more) - gains[unit]) > best:
                best, given, taken = change, unit, outside[more.index(max(more))]
        if not best:
            return
        chosen.remove(given)
        chosen.add(taken)
        gains = [
            gain - less + more
            for gain, less, more in zip(gains, pairs[given], pairs[taken], strict=True)
        ]


class _Search:
    """Searches all choices, depth first, except those that cannot beat the best one so far."""

    def __init__(
        self, worth: Worth, pairs: Pairs, must: Sequence[int], size: int, found: set[int]
    ) -> None:
        self.best = found
        self._most = _value(found, worth, pairs)
        self._pairs = pairs
        self._free = [unit for unit in range(len(worth)) if unit not in must]
        # For each unit, the sum of its best pairs with one, two, ... free units.
        self._reach: list[list[int]] = []
        for unit in range(len(worth)):
            row = sorted((pairs[unit][each] for each in self._free if each != unit), reverse=True)
            self._reach.append([sum(row[:n]) for n in range(size + 1)])
        chosen = set(must)
        self._extend(chosen, 0, _value(chosen, worth, pairs), _gains(chosen, worth, pairs), size)

    def _extend(
        self, chosen: set[int], start: int, value: int, gains: list[int], size: int
    ) -> None:
        lacking = size - len(chosen)
        if not lacking:
            if value > self._most:
                self.best, self._most = set(chosen), value
            return
        # Each missing unit adds its gain, and half of each pair with another missing unit.
        bounds = [2 * gains[unit] + self._reach[unit][lacking - 1] for unit in self._free[start:]]
        if 2 * value + sum(heapq.nlargest(lacking, bounds)) <= 2 * self._most:
            return
        for n in range(start, len(self._free) - lacking + 1):
            unit = self._free[n]
            further = [gain + pair for gain, pair in zip(gains, self._pairs[unit], strict=True)]
            chosen.add(unit)
            self._extend(chosen, n + 1, value + gains[unit], further, size)
            chosen.remove(unit)
