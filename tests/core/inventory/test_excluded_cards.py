"""A card that the operator excludes is shown as excluded and offered to nobody."""

from collections.abc import Mapping

import pytest

from biren_plugin.core.inventory.excluded_cards import UUID_WAIT, without_uuids
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.physical_gpus import SPLIT_SETTLE
from biren_plugin.core.inventory.removal_delay import RETIRE_AFTER
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import NO_HOLDERS, Holder, Holders, LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, LibraryFacts
from biren_plugin.core.parse.card import Card
from biren_plugin.core.settings import Settings
from biren_plugin.errors import BadSetting
from tests.support.cards import GPU, HALF, card, gpu_cards, ids, snapshot

CARDS = (card(0, 0, address="0000:3b:00.0"), card(1, 1, address="0000:5e:00.0"))
TRAIN = Holder("default", "train")


def library(uuids: Mapping[int, str], at: float) -> LibraryRound:
    readings = {number: CardReading(number, uuid=uuid) for number, uuid in uuids.items()}
    return LibraryRound(at, LibraryFacts(""), readings=readings)


class Node:
    """The keeper of a node with these words."""

    def __init__(self, *exclude: str) -> None:
        self.keeper = InventoryKeeper(exclude)

    def look(
        self,
        now: float = 0.0,
        cards: tuple[Card, ...] = CARDS,
        uuids: Mapping[int, str] | None = None,
        holders: Holders = NO_HOLDERS,
        read_at: float | None = None,
    ) -> Inventory:
        """Take what the host shows at `now`, and what the library read then, or at `read_at`."""
        at = now if read_at is None else read_at
        round_ = library(uuids, at) if uuids is not None else None
        return self.keeper.update(Observed(snapshot(*cards), round_, holders), now)


def listed(inventory: Inventory, resource: str = GPU) -> list[str]:
    found = inventory.list_of(resource)
    return ids(found.devices) if found is not None else []


def excluded(inventory: Inventory) -> list[tuple[str, str]]:
    return [(each.device.id, each.word) for each in inventory.excluded]


@pytest.mark.parametrize("word", ["card_1", "0000:5e:00.0", "0000:5E:00.0"])
def test_a_card_is_excluded_by_its_name_or_address(word: str) -> None:
    inventory = Node(word).look()
    assert listed(inventory) == ["card_0"]
    assert excluded(inventory) == [("card_1", word)]
    assert inventory.unmatched == ()


def test_a_name_matches_as_a_whole_only() -> None:
    inventory = Node("card_1").look(cards=(card(1, 1), card(10, 2), card(11, 3)))
    assert listed(inventory) == ["card_10", "card_11"]


def test_an_excluded_instance_still_counts_for_the_split_of_its_gpu() -> None:
    inventory = Node("card_1").look(cards=tuple(gpu_cards(0, 0, 1)))
    assert listed(inventory, HALF) == ["card_0"]
    assert inventory.unsettled == ()


def test_an_address_excludes_all_instances_of_the_gpu() -> None:
    halves = tuple(card(number, 0, parts=2, address="0000:3b:00.0") for number in (0, 1))
    inventory = Node("0000:3b:00.0").look(cards=(*halves, card(2, 1)))
    assert listed(inventory) == ["card_2"]
    assert [each.device.id for each in inventory.excluded] == ["card_0", "card_1"]


def test_a_word_that_no_card_matches_is_a_sentence() -> None:
    node = Node("card_9")
    [sentence] = node.look().unmatched
    assert sentence.startswith("--exclude card_9: no card of this node has that name")
    assert node.look(cards=(*CARDS, card(9, 9))).unmatched == ()


def test_a_node_that_waits_for_its_driver_is_told_nothing_about_words() -> None:
    assert Node("card_9").look(cards=()).unmatched == ()


def test_a_card_of_an_unsettled_gpu_is_known_by_its_name() -> None:
    unsettled = tuple(gpu_cards(0, 0, 1, 2))
    assert Node("card_2").look(cards=unsettled).unmatched == ()
    [sentence] = Node("card_9").look(cards=unsettled).unmatched
    assert sentence.startswith("--exclude card_9: no card of this node has that name")


def test_a_card_that_a_pod_holds_stays_unhealthy_until_the_pod_has_gone() -> None:
    node = Node("card_1")
    inventory = node.look(holders={(GPU, "card_1"): TRAIN})
    held = inventory.find("card_1")
    assert held is not None
    assert held.reasons == (
        "excluded by --exclude card_1; it leaves the list once pod default/train, which holds it, has gone",
    )
    assert excluded(inventory) == [("card_1", "card_1")]
    assert listed(node.look(RETIRE_AFTER + 1)) == ["card_0"]


def test_no_card_is_offered_before_the_library_reported_the_uuids() -> None:
    node = Node("GPU-1")
    waiting = node.look(0.0)
    assert [device.healthy for device in waiting.lists[0].devices] == [False, False]
    assert waiting.unmatched == ()
    inventory = node.look(1.0, uuids={0: "GPU-0", 1: "GPU-1"})
    assert [(each.id, each.healthy) for each in inventory.lists[0].devices] == [
        ("card_0", True),
        ("card_1", False),
    ], "it was listed, so it leaves in two steps"
    assert excluded(inventory) == [("card_1", "GPU-1")]
    assert listed(node.look(1.0 + RETIRE_AFTER, uuids={0: "GPU-0"})) == ["card_0"]


def test_a_uuid_that_went_with_its_split_means_no_card() -> None:
    node = Node("GPU-1")
    node.look(0.0, uuids={0: "GPU-0", 1: "GPU-1"})
    halves = (CARDS[0], *gpu_cards(1, 2, 3))
    uuids = {0: "GPU-0", 2: "SVI-2", 3: "SVI-3"}
    node.look(1.0, halves, uuids)
    inventory = node.look(1.0 + SPLIT_SETTLE, halves, uuids)
    assert listed(inventory, HALF) == ["card_2", "card_3"]
    [sentence] = inventory.unmatched
    assert sentence.startswith("--exclude GPU-1: no card of this node has that UUID")


def test_a_card_excluded_by_its_uuid_stays_so_while_another_gets_its_name() -> None:
    node = Node("GPU-1")
    node.look(0.0, uuids={0: "GPU-0", 1: "GPU-1"})
    halves = (CARDS[0], *gpu_cards(1, 1, 2))
    uuids = {0: "GPU-0", 1: "SVI-1", 2: "SVI-2"}
    for now in (1.0, 2.0, 3.9):
        changing = node.look(now, halves, uuids)
        assert listed(changing) == ["card_0"]
        assert excluded(changing) == [("card_1", "GPU-1")]
        assert changing.unmatched == ()
    settled = node.look(1.0 + SPLIT_SETTLE, halves, uuids)
    assert listed(settled) == ["card_0"]
    assert listed(settled, HALF) == ["card_1", "card_2"]


def test_an_excluded_uuid_is_not_offered_on_the_word_of_the_card_that_had_its_name() -> None:
    node = Node("SVI-1")
    node.look(0.0, uuids={0: "GPU-0", 1: "GPU-1"})
    halves = (CARDS[0], *gpu_cards(1, 1, 2))
    before = {0: "GPU-0", 1: "GPU-1"}
    for now in (1.0, 1.0 + SPLIT_SETTLE):
        inventory = node.look(now, halves, before, read_at=0.5)
    found = inventory.list_of(HALF)
    assert found is not None
    assert [each.healthy for each in found.devices] == [False, False]
    assert "has not reported the UUID of this card yet" in found.devices[0].reasons[0]
    inventory = node.look(5.0, halves, {0: "GPU-0", 1: "SVI-1", 2: "SVI-2"})
    assert excluded(inventory) == [("card_1", "SVI-1")]


def test_without_the_library_cards_are_offered_after_a_while_with_a_warning() -> None:
    node = Node("GPU-1")
    node.look(0.0)
    inventory = node.look(UUID_WAIT)
    assert all(device.healthy for device in inventory.lists[0].devices)
    [sentence] = inventory.unmatched
    assert "no card of this node has that UUID, as far as the management library" in sentence


def test_cards_are_awaited_from_the_moment_at_which_they_appeared() -> None:
    node = Node("GPU-1")
    node.look(100.0)
    inventory = node.look(100.0 + UUID_WAIT - 0.1)
    assert [device.healthy for device in inventory.lists[0].devices] == [False, False]
    assert inventory.unmatched == (), "a card whose UUID is not known yet may be meant"
    assert all(device.healthy for device in node.look(100.0 + UUID_WAIT).lists[0].devices)


def test_a_scan_without_the_library_matches_names_and_addresses() -> None:
    words = ["card_1", "GPU-1", "0000:5e:00.0", "/dev/vfio/7"]
    assert without_uuids(words) == ["card_1", "0000:5e:00.0", "/dev/vfio/7"]


def test_a_library_that_falls_silent_does_not_bring_the_card_back() -> None:
    node = Node("GPU-1")
    node.look(0.0, uuids={0: "GPU-0", 1: "GPU-1"})
    inventory = node.look(60.0)
    assert listed(inventory) == ["card_0"]
    assert excluded(inventory) == [("card_1", "GPU-1")]


def test_an_excluded_name_means_the_card_that_has_it_now() -> None:
    node = Node("card_4")
    whole = (card(4, 0), card(1, 1))
    assert listed(node.look(0.0, whole)) == ["card_1"]
    swapped = (card(1, 0), card(4, 1))
    node.look(1.0, swapped)
    inventory = node.look(1.0 + SPLIT_SETTLE, swapped)
    [device] = inventory.lists[0].devices
    assert (device.id, device.healthy, device.card.physical_id) == ("card_1", True, 0)
    assert excluded(inventory) == [("card_4", "card_4")]


@pytest.mark.parametrize("word", ["card", "card_", "3", "3b:00.0", "*", "", "card_1,card_2"])
def test_what_is_neither_name_nor_address_nor_uuid_is_refused(word: str) -> None:
    with pytest.raises(BadSetting, match="--exclude"):
        Settings(exclude=(word,))
