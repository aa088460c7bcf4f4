"""For units and pairs of any value, the search finds the best choice."""

import itertools
from collections.abc import Collection
from random import Random

import pytest

from biren_plugin.core.placement.pair_search import EXACT_UP_TO, Pairs, best_by_pairs


def any_pairs(seed: int, units: int) -> Pairs:
    chance = Random(seed)
    pairs = [[0] * units for _ in range(units)]
    for one in range(units):
        for two in range(one):
            pairs[one][two] = pairs[two][one] = chance.choice([0, 0, 1, 4, 9])
    return pairs


def value(chosen: Collection[int], pairs: Pairs) -> int:
    return sum(pairs[one][two] for one, two in itertools.combinations(chosen, 2))


@pytest.mark.parametrize(
    ("units", "size", "seed"),
    [(10, 4, 386), (12, 5, 329), (14, 6, 194), (14, 6, 294), (EXACT_UP_TO, 5, 210)],
)
def test_best_choice_is_found_where_exchanges_lead_nowhere(
    units: int, size: int, seed: int
) -> None:
    """In all but the last the choice that no exchange makes better is not the best."""
    pairs = any_pairs(seed, units)
    most = max(value(chosen, pairs) for chosen in itertools.combinations(range(units), size))
    found = best_by_pairs([0] * units, pairs, [], size)
    assert (len(found), value(found, pairs)) == (size, most)


@pytest.mark.parametrize("units", [3, EXACT_UP_TO, EXACT_UP_TO + 1])
def test_nothing_and_exactly_the_required_units_are_choices_too(units: int) -> None:
    pairs = any_pairs(0, units)
    assert best_by_pairs([0] * units, pairs, [], 0) == set()
    assert best_by_pairs([0] * units, pairs, [2, 0], 2) == {0, 2}


def test_a_unit_counts_with_its_own_value() -> None:
    assert best_by_pairs([1, 5, 3], [[0] * 3] * 3, [], 2) == {1, 2}
    assert best_by_pairs([1, 5, 3], [[0] * 3] * 3, [0], 2) == {0, 1}
