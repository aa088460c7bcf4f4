"""Cards are named in the order of their numbers, many in a row as a range, and a fault of many once."""

import pytest

from biren_plugin.core.card_names import alike, by_number, shorten_names


def test_names_are_in_the_order_of_their_numbers() -> None:
    assert sorted(["card_10", "card_2", "card_0"], key=by_number) == ["card_0", "card_2", "card_10"]


@pytest.mark.parametrize("name", ["card_\u00b2", "card_" + "9" * 5000, "", "\udc80"])
def test_a_name_that_no_card_has_can_be_sorted_too(name: str) -> None:
    assert len(sorted([name, "card_1"], key=by_number)) == 2


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["card_3"], "card_3"),
        (["card_0", "card_1", "card_2"], "card_0, card_1, card_2 (3)"),
        (["card_0", "card_1", "card_2", "card_3", "card_7"], "card_0 to card_3, card_7 (5)"),
        (["card_3", "/dev/vfio/4", "card_5"], "card_3, /dev/vfio/4, card_5 (3)"),
    ],
)
def test_four_cards_in_a_row_are_a_range(names: list[str], text: str) -> None:
    assert shorten_names(names) == text


def test_texts_that_differ_only_by_the_names_are_one_text() -> None:
    faults = [(n, [f"card_{n}", None], f"card_{n} is silent") for n in (1, 10)]
    other = (2, ["card_2"], "card_1 is silent")
    assert list(alike([*faults, other])) == [
        ([1, 2, 10], "card_1 is silent (and likewise the others)")
    ]
    assert list(alike([*faults, other], apart=3)) == [
        ([1, 2], "card_1 is silent"),
        ([10], "card_10 is silent"),
    ]


def test_a_name_that_is_a_part_of_a_longer_one_is_another_name() -> None:
    texts = [(1, ["card_1"], "see card_10"), (2, ["card_2"], "see card_20")]
    assert list(alike(texts)) == [([1], "see card_10"), ([2], "see card_20")]
