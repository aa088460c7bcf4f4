"""For units and pairs of any value, the search finds the best choice."""

import itertools
from collections.abc import Collection, Sequence
from random import Random

import pytest

from biren_plugin.core.placement.pair_search import EXACT_UP_TO, Pairs, Worth, best_by_pairs


def any_pairs(seed: int | Random, units: int, values: Sequence[int] = (0, 0, 1, 4, 9)) -> Pairs:
    chance = Random(seed) if isinstance(seed, int) else seed
    pairs = [[0] * units for _ in range(units)]
    for one in range(units):
        for two in range(one):
            pairs[one][two] = pairs[two][one] = chance.choice(values)
    return pairs


def value(chosen: Collection[int], pairs: Pairs, worth: Worth | None = None) -> int:
    own = sum(worth[unit] for unit in chosen) if worth is not None else 0
    return own + sum(pairs[one][two] for one, two in itertools.combinations(chosen, 2))


def is_best(worth: Worth, pairs: Pairs, size: int) -> bool:
    """Whether no choice of that many units is worth more than the one found."""
    found = best_by_pairs(worth, pairs, [], size)
    choices = itertools.combinations(range(len(worth)), size)
    best = max(value(chosen, pairs, worth) for chosen in choices)
    return len(found) == size and value(found, pairs, worth) == best


@pytest.mark.parametrize(
    ("units", "size", "seed"),
    [(10, 4, 386), (12, 5, 329), (14, 6, 194), (14, 6, 294), (EXACT_UP_TO, 5, 210)],
)
def test_best_choice_is_found_where_exchanges_lead_nowhere(
    units: int, size: int, seed: int
) -> None:
    """In all but the last the choice that no exchange makes better is not the best."""
    pairs = any_pairs(seed, units)
    assert is_best([0] * units, pairs, size)


@pytest.mark.parametrize("seed", [386, 929])
def test_best_choice_is_found_where_units_cost_more_than_their_pairs_are_worth(seed: int) -> None:
    """The choice that no exchange makes better is not the best."""
    chance = Random(seed)
    worth = [chance.choice([-30, -20, -12]) for _ in range(12)]
    assert is_best(worth, any_pairs(chance, 12), 5)


@pytest.mark.parametrize(
    ("units", "seed"), [(EXACT_UP_TO, 717), *((EXACT_UP_TO + 1, seed) for seed in (11, 13, 26))]
)
def test_many_units_are_grown_from_several_of_them_and_few_are_searched(
    units: int, seed: int
) -> None:
    """For one unit more than are searched, the best exchange of the best growth leads to the best choice."""
    chance = Random(seed)
    worth = [chance.randint(-9, 9) for _ in range(units)]
    assert is_best(worth, any_pairs(chance, units, range(-9, 10)), 5)


@pytest.mark.parametrize("units", [3, EXACT_UP_TO, EXACT_UP_TO + 1])
def test_nothing_and_exactly_the_required_units_are_choices_too(units: int) -> None:
    pairs = any_pairs(0, units)
    assert best_by_pairs([0] * units, pairs, [], 0) == set()
    assert best_by_pairs([0] * units, pairs, [2, 0], 2) == {0, 2}


def test_a_unit_counts_with_its_own_value() -> None:
    assert best_by_pairs([1, 5, 3], [[0] * 3] * 3, [], 2) == {1, 2}
    assert best_by_pairs([1, 5, 3], [[0] * 3] * 3, [0], 2) == {0, 1}
