"""Cards that belong together are told by what they say of themselves, their address, their past."""

from collections.abc import Iterable

from biren_plugin.core.inventory.splits import group_by_gpu, name_of_gpu, shown_devices
from biren_plugin.core.parse.card import Card
from tests.support.cards import GPU, HALF, card, gpu_cards

ADDRESS = "0000:01:00.0"


def names(groups: dict[int, tuple[Card, ...]]) -> dict[int, list[str]]:
    assert all(each.physical_id == gpu for gpu, cards in groups.items() for each in cards)
    return {gpu: [each.name for each in cards] for gpu, cards in groups.items()}


def named(cards: Iterable[Card]) -> list[str]:
    return [each.name for each in cards]


def test_card_that_does_not_tell_its_gpu_belongs_to_the_one_at_its_address() -> None:
    cards = [
        card(2, address="0000:02:00.0"), card(1, address=ADDRESS), card(0, 7, address=ADDRESS),
    ]  # fmt: skip
    groups, strays = group_by_gpu(cards)
    assert names(groups) == {7: ["card_0", "card_1"]}
    assert named(strays) == ["card_2"]


def test_the_address_counts_for_more_than_where_a_name_was_before() -> None:
    cards = [card(0, 7, address=ADDRESS), card(1, address=ADDRESS)]
    groups, _ = group_by_gpu(cards, {"card_0": 7, "card_1": 3})
    assert names(groups) == {7: ["card_0", "card_1"]}, "card_1 has passed from GPU 3 to GPU 7"


def test_gpu_of_a_group_is_named_by_its_address() -> None:
    assert name_of_gpu(card(2, 7)) == "GPU 7"
    assert name_of_gpu(Card("/dev/vfio/12", 12, physical_id=0x3B << 8)) == "GPU 0000:3b:00.0"


def test_shown_devices_are_those_of_each_gpu_as_it_looks_now() -> None:
    cards = [*gpu_cards(0, 0), *gpu_cards(1, 1, 2), *gpu_cards(2, 3, 4, 5), card(9)]
    assert shown_devices(cards) == {(GPU, "card_0"), (HALF, "card_1"), (HALF, "card_2")}
