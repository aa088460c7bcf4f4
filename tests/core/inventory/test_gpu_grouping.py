"""Cards of one GPU are recognised by their `physical_id`, their address or their past."""

from collections.abc import Iterable

import attrs
import pytest

from biren_plugin.core.inventory.gpu_grouping import group_by_gpu, name_of_gpu
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.physical_gpus import shown_devices
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.card import Card
from tests.support.cards import GPU, HALF, card, gpu_cards, ids, snapshot

ADDRESS = "0000:01:00.0"


def names(groups: dict[int, tuple[Card, ...]]) -> dict[int, list[str]]:
    assert all(each.physical_id == gpu for gpu, cards in groups.items() for each in cards)
    return {gpu: [each.name for each in cards] for gpu, cards in groups.items()}


def named(cards: Iterable[Card]) -> list[str]:
    return [each.name for each in cards]


def test_a_card_that_does_not_report_its_gpu_belongs_to_the_gpu_at_its_address() -> None:
    cards = [
        card(2, address="0000:02:00.0"), card(1, address=ADDRESS), card(0, 7, address=ADDRESS),
    ]  # fmt: skip
    groups, strays = group_by_gpu(cards)
    assert names(groups) == {7: ["card_0", "card_1"]}
    assert named(strays) == ["card_2"]


def test_the_address_takes_precedence_over_the_names_last_gpu() -> None:
    cards = [card(0, 7, address=ADDRESS), card(1, address=ADDRESS)]
    groups, _ = group_by_gpu(cards, {"card_0": 7, "card_1": 3})
    assert names(groups) == {7: ["card_0", "card_1"]}, "card_1 has passed from GPU 3 to GPU 7"


def test_a_card_that_shows_neither_gpu_nor_address_stays_with_its_last_gpu() -> None:
    groups, strays = group_by_gpu([card(0, 7, address=ADDRESS), card(1)], {"card_1": 7})
    assert names(groups) == {7: ["card_0", "card_1"]}
    assert strays == []


def test_the_gpu_of_a_group_is_named_by_its_address() -> None:
    assert name_of_gpu(card(2, 7)) == "GPU 7"
    assert name_of_gpu(Card("/dev/vfio/12", 12, physical_id=0x3B << 8)) == "GPU 0000:3b:00.0"


def test_shown_devices_follow_each_gpus_current_split() -> None:
    cards = [*gpu_cards(0, 0), *gpu_cards(1, 1, 2), *gpu_cards(2, 3, 4, 5), card(9)]
    assert shown_devices(cards) == {(GPU, "card_0"), (HALF, "card_1"), (HALF, "card_2")}


FIRST, SECOND = "0000:3b:00.0", "0000:5e:00.0"


def held(cards: list[Card]) -> tuple[dict[str, list[str]], list[str]]:
    """Ids by resource, and what is reported of the node as a whole."""
    inventory = InventoryKeeper().update(Observed(snapshot(*cards)), 0.0)
    return (
        {each.resource: ids(each.devices) for each in inventory.lists},
        list(inventory.unsettled),
    )


def test_two_whole_gpus_with_one_physical_id_are_offered_whole_with_a_warning() -> None:
    cards = [card(0, 0, address=FIRST), card(1, 0, address=SECOND)]
    lists, [warning] = held(cards)
    assert lists == {GPU: ["card_0", "card_1"]}
    assert "physical_id 0" in warning
    assert FIRST in warning
    assert SECOND in warning


def test_halves_with_different_addresses_stay_halves_by_their_memory() -> None:
    halves = [card(0, 0, parts=2, address=FIRST), card(1, 0, parts=2, address=SECOND)]
    whole = card(2, 1, address="0000:60:00.0")
    lists, [warning] = held([*halves, whole])
    assert lists == {GPU: ["card_2"], HALF: ["card_0", "card_1"]}
    assert FIRST in warning
    assert SECOND in warning


def test_small_gpus_with_one_physical_id_are_distinguished_from_halves_by_the_other_gpus() -> None:
    small = [card(n, 0, parts=2, address=f"0000:0{n}:00.0") for n in range(2)]
    other = card(2, 1, parts=2, address="0000:60:00.0")
    assert held([*small, other])[0] == {GPU: ["card_0", "card_1", "card_2"]}


@pytest.mark.parametrize(
    ("count", "end"), [(4, "0000:03:00.0)"), (5, "0000:03:00.0 and 1 more)"), (8, "and 4 more)")]
)
def test_gpus_with_one_physical_id_are_offered_one_by_one(count: int, end: str) -> None:
    cards = [card(n, 0, address=f"0000:0{n}:00.0") for n in range(count)]
    lists, [warning] = held(cards)
    assert lists == {GPU: [f"card_{n}" for n in range(count)]}
    assert warning.startswith(
        f"card_0 to card_{count - 1} ({count}) share physical_id 0 but not their PCI function (0000:00:00.0, "
    )
    assert f"{end}: each function is offered as a GPU of its own, {count} in all" in warning


def test_gpus_with_one_physical_id_stay_apart_while_their_memory_cannot_be_read() -> None:
    cards = [card(0, 0, address=FIRST), card(1, 0, address=SECOND)]
    keeper = InventoryKeeper()
    keeper.update(Observed(snapshot(*cards)), 0.0)
    unread = [attrs.evolve(each, memory=None) for each in cards]
    inventory = keeper.update(Observed(snapshot(*unread)), 1.0)
    assert [each.resource for each in inventory.lists] == [GPU]
    assert all(device.healthy and device.card.present for device in inventory.lists[0].devices)


def test_a_garbage_physical_id_is_reported_with_its_text() -> None:
    garbage = attrs.evolve(card(3), misread=("physical_id reads 'N/A'",))
    _, [garbled] = held([garbage])
    assert "physical_id reads 'N/A'" in garbled
    assert "cannot be read" not in garbled
    _, [unread] = held([card(3)])
    assert "physical_id is missing, empty or unreadable" in unread
