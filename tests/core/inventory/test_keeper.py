"""Splits are offered once they have settled, and cards are retired in two steps."""

import attrs
import pytest

from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.physical_gpus import APPEAR_SETTLE, SPLIT_SETTLE
from biren_plugin.core.inventory.removal_delay import EMPTY_LINGER, RETIRE_AFTER
from biren_plugin.core.model import Device, HostFacts, Inventory, Snapshot
from biren_plugin.core.observed import (
    ClaimFile,
    ClaimsSeen,
    Holder,
    LibraryRound,
    Observed,
)
from biren_plugin.core.parse.brml import CardReading, KnownCard, LibraryFacts
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.core.parse.claim_device import ClaimDevice
from tests.support.cards import GPU, HALF, QUARTER, card, gpu_cards, ids, snapshot

HOST = HostFacts(control_node=True)
CLAIM = ClaimFile((ClaimDevice("uid-1", "cards", "gpu-0000-3b-00-0"),), (1, 1))


class Node:
    """A keeper with a clock: each scan comes this many seconds after the last."""

    def __init__(self, *cards: Card) -> None:
        self._keeper = InventoryKeeper()
        self._now = 100.0
        self._observed = Observed(snapshot(*cards))
        self.inventory = self._keeper.update(self._observed, self._now)

    def look(self, after: float, *cards: Card) -> Inventory:
        """Scan these cards; the last reports of the library and the kubelet stay valid."""
        self._now += after
        self._observed = attrs.evolve(self._observed, snapshot=snapshot(*cards))
        self.inventory = self._keeper.update(self._observed, self._now)
        return self.inventory

    def library_says(self, split: int, pending: int, *numbers: int) -> None:
        """From now on the library knows these cards, and how their GPU is split."""
        readings = {
            number: CardReading(number, svi_current=split, svi_pending=pending)
            for number in numbers
        }
        known = {number: KnownCard(0, split) for number in numbers}
        self.library_tells(LibraryRound(self._now, LibraryFacts(""), known, readings))

    def library_tells(self, round_: LibraryRound) -> None:
        """Set the library's last report."""
        self._observed = attrs.evolve(self._observed, library=round_)

    def pods_hold(self, holders: dict[tuple[str, str], Holder]) -> None:
        """From now on these pods hold these cards."""
        self._observed = attrs.evolve(self._observed, holders=holders)

    def healthy(self, resource: str) -> list[str]:
        return ids(device for device in self.devices(resource) if device.healthy)

    def unhealthy(self, resource: str) -> list[str]:
        return ids(device for device in self.devices(resource) if not device.healthy)

    def reasons(self, device_id: str) -> tuple[str, ...]:
        device = self.inventory.find(device_id)
        assert device is not None
        return device.reasons

    def devices(self, resource: str) -> tuple[Device, ...]:
        found = self.inventory.list_of(resource)
        return found.devices if found is not None else ()


def test_cards_present_at_the_start_are_accepted_at_once() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1, 2), *gpu_cards(2, 3, 4, 5, 10))
    assert node.healthy(GPU) == ["card_0"]
    assert node.healthy(HALF) == ["card_1", "card_2"]
    assert node.healthy(QUARTER) == ["card_3", "card_4", "card_5", "card_10"]
    assert node.inventory.unsettled == ()


def test_lists_carry_the_hosts_facts_and_the_pulse() -> None:
    keeper = InventoryKeeper()
    look = Snapshot(tuple(gpu_cards(0, 0)), HOST, driver_loaded=True)
    inventory = keeper.update(Observed(look, pulse=7), 0.0)
    [devices] = inventory.lists
    assert (devices.host, devices.pulse, inventory.host) == (HOST, 7, HOST)
    assert keeper.update(Observed(look, pulse=7), 1.0) == inventory, "nothing changed"
    later = keeper.update(Observed(look, pulse=8), 2.0)
    assert later != inventory, "a heartbeat sends the same list again"


def test_a_node_without_the_driver_has_no_list() -> None:
    inventory = InventoryKeeper().update(Observed(Snapshot(driver_loaded=False)), 0.0)
    assert inventory == Inventory(driver_loaded=False)


def test_a_new_gpu_is_accepted_after_two_equal_scans() -> None:
    node = Node(*gpu_cards(0, 0))
    both = (*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.look(1, *both)
    assert node.healthy(GPU) == ["card_0"]
    assert node.inventory.unsettled == (), "it is only new"
    node.look(APPEAR_SETTLE, *both)
    assert node.healthy(GPU) == ["card_0", "card_1"]


def test_a_gpu_that_appears_card_by_card_never_counts_as_a_smaller_split() -> None:
    node = Node()
    for last in range(4):
        node.look(0.8, *(card(number, 0, parts=4) for number in range(last + 1)))
        assert node.inventory.lists == ()
    node.look(APPEAR_SETTLE, *gpu_cards(0, 0, 1, 2, 3))
    assert node.healthy(QUARTER) == ["card_0", "card_1", "card_2", "card_3"]


def test_a_new_split_is_accepted_only_once_it_stayed_the_same() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    assert node.healthy(GPU) == []
    assert node.unhealthy(GPU) == ["card_0"]
    assert "has not settled, 2 cards are there" in node.reasons("card_0")[0]
    assert any("has not settled" in text for text in node.inventory.unsettled)
    node.look(SPLIT_SETTLE - 0.1, *gpu_cards(0, 0, 1))
    assert node.inventory.list_of(HALF) is None
    node.look(0.2, *gpu_cards(0, 0, 1))
    assert node.healthy(HALF) == ["card_0", "card_1"]
    assert node.unhealthy(GPU) == ["card_0"]
    assert node.inventory.unsettled == ()


def test_every_change_of_a_split_restarts_its_settling_time() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.look(2.5, *gpu_cards(0, 0, 2))
    node.look(2.5, *gpu_cards(0, 0, 1))
    node.look(2.5, *gpu_cards(0, 0, 1))
    assert node.inventory.list_of(HALF) is None
    node.look(1, *gpu_cards(0, 0, 1))
    assert node.healthy(HALF) == ["card_0", "card_1"]


def test_a_split_that_is_reverted_is_healthy_at_once() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.look(1, *gpu_cards(0, 0))
    assert node.healthy(GPU) == ["card_0"]
    assert node.inventory.unsettled == ()


@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 1, 2, 3, 4)])
def test_a_number_of_cards_that_is_not_a_split_is_never_offered(numbers: tuple[int, ...]) -> None:
    node = Node(*gpu_cards(0, *numbers))
    for _ in range(10):
        node.look(10, *gpu_cards(0, *numbers))
        assert node.inventory.lists == ()
    assert f"{len(numbers)} cards are there" in node.inventory.unsettled[0]


def test_one_unsettled_gpu_does_not_affect_the_others() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.look(1, *gpu_cards(0, 0, 4, 5), *gpu_cards(1, 1))
    assert (node.healthy(GPU), node.unhealthy(GPU)) == (["card_1"], ["card_0"])


def test_a_start_during_a_split_is_recognised_by_the_memory() -> None:
    half_way = [card(1, 1, parts=4), card(2, 1, parts=4)]
    node = Node(*gpu_cards(0, 0), *half_way)
    assert node.inventory.list_of(HALF) is None
    all_four = [*half_way, card(3, 1, parts=4), card(4, 1, parts=4)]
    node.look(1, *gpu_cards(0, 0), *all_four)
    node.look(APPEAR_SETTLE, *gpu_cards(0, 0), *all_four)
    assert node.healthy(QUARTER) == ["card_1", "card_2", "card_3", "card_4"]
    assert node.inventory.list_of(HALF) is None


def test_a_gpu_with_less_memory_is_accepted_if_it_stays_so() -> None:
    look = [*gpu_cards(0, 0), card(1, 1, parts=2)]
    node = Node(*look)
    assert node.healthy(GPU) == ["card_0"]
    node.look(SPLIT_SETTLE, *look)
    assert node.healthy(GPU) == ["card_0", "card_1"]


def test_unknown_memory_contradicts_nothing() -> None:
    node = Node(Card("card_0", 0, physical_id=0), *gpu_cards(1, 1), card(2, 2, parts=1))
    assert node.healthy(GPU) == ["card_0", "card_1", "card_2"]


def test_a_gpu_that_vanishes_stays_listed_as_not_present() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    for _ in range(5):
        node.look(100, *gpu_cards(0, 0))
        assert [(device.id, device.card.present) for device in node.devices(GPU)] == [
            ("card_0", True),
            ("card_1", False),
        ]
    node.look(1, *gpu_cards(0, 0), *gpu_cards(1, 1))
    assert [device.card.present for device in node.devices(GPU)] == [True, True]


def test_a_gpu_that_returns_with_another_split_has_to_settle() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1)
    node.look(100, *gpu_cards(0, 0, 1))
    assert (node.healthy(HALF), node.unhealthy(GPU)) == ([], ["card_0"])
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0, 1))
    assert node.healthy(HALF) == ["card_0", "card_1"]
    node.look(RETIRE_AFTER, *gpu_cards(0, 0, 1))
    assert node.devices(GPU) == ()


def test_a_new_split_confirmed_by_the_library_is_accepted_at_once() -> None:
    node = Node(*gpu_cards(0, 0))
    node.library_says(1, 1, 0)
    node.look(1, *gpu_cards(0, 3, 4))
    assert node.healthy(HALF) == [], "what the library said before is of no use"
    node.library_says(2, 2, 3, 4)
    node.look(0.1, *gpu_cards(0, 3, 4))
    assert node.healthy(HALF) == ["card_3", "card_4"]


def test_a_reused_name_waits_until_the_kubelet_was_asked() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.library_says(2, 2, 0, 1)
    node.look(0.1, *gpu_cards(0, 0, 1))
    assert (node.healthy(HALF), node.unhealthy(HALF)) == (["card_1"], ["card_0"])
    [half, _] = node.devices(HALF)
    assert "card_0 was a birentech.com/gpu a moment ago" in half.reasons[0]
    [whole] = node.devices(GPU)
    assert whole.reasons == ("replaced by a new split of GPU 0",)
    node.pods_hold({(GPU, "card_0"): Holder("default", "train")})
    node.look(SPLIT_SETTLE - 0.1, *gpu_cards(0, 0, 1))
    [half, _] = node.devices(HALF)
    assert "pod default/train still holds card_0" in half.reasons[0]


def test_a_reused_name_without_a_holder_is_offered_after_the_settling_time() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    renumbered = (*gpu_cards(0, 0, 1), *gpu_cards(1, 2))
    node.look(1, *renumbered)
    node.library_says(2, 2, 0, 1)
    node.look(SPLIT_SETTLE - 0.1, *renumbered)
    assert (node.healthy(HALF), node.unhealthy(HALF)) == ([], ["card_0", "card_1"])
    node.look(0.1, *renumbered)
    assert node.healthy(HALF) == ["card_0", "card_1"]


@pytest.mark.parametrize(("split", "pending"), [(2, 4), (4, 4), (2, 1)])
def test_a_new_split_not_confirmed_by_the_library_has_to_settle(split: int, pending: int) -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.library_says(split, pending, 0, 1)
    node.look(SPLIT_SETTLE - 0.1, *gpu_cards(0, 0, 1))
    assert node.healthy(HALF) == []
    node.look(0.1, *gpu_cards(0, 0, 1))
    assert node.healthy(HALF) == ["card_0", "card_1"]


def test_a_new_gpu_waits_longer_if_the_library_reports_a_pending_split() -> None:
    node = Node(*gpu_cards(0, 0))
    cards = (*gpu_cards(0, 0), *gpu_cards(1, 1, 2))
    node.look(1, *cards)
    node.library_says(4, 4, 1, 2)
    node.look(APPEAR_SETTLE, *cards)
    assert node.devices(HALF) == ()
    node.look(SPLIT_SETTLE - APPEAR_SETTLE, *cards)
    assert ids(node.devices(HALF)) == ["card_1", "card_2"]


def test_a_library_that_does_not_report_splits_delays_no_gpu() -> None:
    node = Node(*gpu_cards(0, 0))
    cards = (*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.look(1, *cards)
    told = LibraryRound(101.0, LibraryFacts(""), readings={1: CardReading(1, temperature=40)})
    node.library_tells(told)
    node.look(APPEAR_SETTLE, *cards)
    assert node.healthy(GPU) == ["card_0", "card_1"]


def test_a_card_that_only_the_library_knows_is_listed_as_unhealthy() -> None:
    node = Node(*gpu_cards(0, 0))
    node.library_says(1, 1, 0, 5)
    node.look(0, *gpu_cards(0, 0))
    assert node.unhealthy(GPU) == [], "it may just come or go"
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0))
    assert (node.healthy(GPU), node.unhealthy(GPU)) == (["card_0"], ["card_5"])
    assert [device.card.present for device in node.devices(GPU)] == [True, False]
    assert (
        "known to the management library but missing from /sys/class/biren"
        in node.reasons("card_5")[0]
    )
    node.library_says(1, 1, 0)
    node.look(RETIRE_AFTER - 0.1, *gpu_cards(0, 0))
    assert node.unhealthy(GPU) == ["card_5"]
    node.look(0.1, *gpu_cards(0, 0))
    assert node.unhealthy(GPU) == []


def test_a_card_that_only_the_library_knows_with_unknown_split_is_reported() -> None:
    node = Node(*gpu_cards(0, 0))
    known = {0: KnownCard(0, 1), 5: KnownCard(1)}
    node.library_tells(LibraryRound(0.0, LibraryFacts(""), known))
    node.look(0, *gpu_cards(0, 0))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0))
    assert ids(node.devices(GPU)) == ["card_0"]
    assert "card_5 is known to the management library" in node.inventory.unsettled[0]


def test_cards_that_only_the_library_knows_are_listed_each_in_its_own_time() -> None:
    node = Node(*gpu_cards(0, 0))
    node.library_says(1, 1, 0, 6)
    node.look(1, *gpu_cards(0, 0))
    node.library_says(1, 1, 0, 5, 6)
    node.look(SPLIT_SETTLE - 1, *gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0))
    assert node.unhealthy(GPU) == ["card_6"], "card_5 may just come or go"


def test_a_vanished_card_still_known_to_the_library_is_not_listed_twice() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.library_says(1, 1, 0, 1)
    node.look(1, *gpu_cards(0, 0))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0))
    assert ids(node.devices(GPU)) == ["card_0", "card_1"]
    node.library_tells(LibraryRound(0.0, LibraryFacts(""), {0: KnownCard(0), 1: KnownCard(1)}))
    node.look(1, *gpu_cards(0, 0))
    assert node.inventory.unsettled == (), "nor is it reported as a card of unknown split"


def test_a_replaced_card_held_by_a_pod_stays_listed_until_the_pod_has_gone() -> None:
    node = Node(*gpu_cards(0, 0))
    node.pods_hold({(GPU, "card_0"): Holder("default", "train")})
    for _ in range(10):
        node.look(SPLIT_SETTLE, *gpu_cards(0, 4, 5))
    assert node.healthy(HALF) == ["card_4", "card_5"]
    assert node.unhealthy(GPU) == ["card_0"]
    assert "pod default/train holds card_0" in node.reasons("card_0")[0]
    assert [device.card.present for device in node.devices(GPU)] == [False]
    node.pods_hold({})
    node.look(RETIRE_AFTER - 0.1, *gpu_cards(0, 4, 5))
    assert node.unhealthy(GPU) == ["card_0"]
    node.look(0.1, *gpu_cards(0, 4, 5))
    assert node.unhealthy(GPU) == []


def test_a_reused_name_is_not_offered_under_another_resource_until_its_pod_has_gone() -> None:
    node = Node(*gpu_cards(0, 0))
    node.pods_hold({(GPU, "card_0"): Holder("default", "train")})
    node.look(1, *gpu_cards(0, 0, 1))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0, 1))
    assert (node.healthy(HALF), node.unhealthy(HALF)) == (["card_1"], ["card_0"])
    [half] = [device for device in node.devices(HALF) if device.id == "card_0"]
    assert "pod default/train still holds card_0 as a birentech.com/gpu" in half.reasons[0]
    node.pods_hold({})
    node.look(0.1, *gpu_cards(0, 0, 1))
    assert node.healthy(HALF) == ["card_0", "card_1"]


TRAIN, INFER = Holder("default", "train"), Holder("default", "infer")


def test_a_renamed_card_is_not_offered_until_its_pod_has_gone() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1), *gpu_cards(2, 2))
    node.pods_hold({(GPU, "card_1"): TRAIN, (GPU, "card_2"): INFER})
    shifted = (*gpu_cards(0, 0, 1), *gpu_cards(1, 2), *gpu_cards(2, 3))
    node.look(1, *shifted)
    node.look(SPLIT_SETTLE, *shifted)
    assert node.healthy(GPU) == []
    assert (
        "pod default/infer still holds it under its former name card_2"
        in (node.reasons("card_3")[0])
    )
    node.pods_hold({(GPU, "card_1"): TRAIN})
    node.look(1, *shifted)
    assert node.healthy(GPU) == ["card_3"]
    assert (
        "pod default/train still holds it under its former name card_1"
        in (node.reasons("card_2")[0])
    )
    node.pods_hold({})
    node.look(1, *shifted)
    assert node.healthy(GPU) == ["card_2", "card_3"]
    node.pods_hold({(GPU, "card_2"): TRAIN})
    node.look(1, *shifted)
    assert node.healthy(GPU) == ["card_2", "card_3"], "the former name has another card now"


def test_another_pod_with_the_former_name_is_not_a_reason() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.pods_hold({(GPU, "card_1"): TRAIN})
    shifted = (*gpu_cards(0, 1), *gpu_cards(1, 2))
    node.look(1, *shifted)
    node.look(SPLIT_SETTLE, *shifted)
    assert node.healthy(GPU) == ["card_1"]
    node.pods_hold({(GPU, "card_1"): INFER})
    node.look(1, *shifted)
    assert node.healthy(GPU) == ["card_1", "card_2"]


def test_a_card_renamed_twice_is_still_held_under_its_first_name() -> None:
    node = Node(*gpu_cards(1, 1))
    node.pods_hold({(GPU, "card_1"): TRAIN})
    for number in (4, 7):
        node.look(1, *gpu_cards(1, number))
        node.look(SPLIT_SETTLE, *gpu_cards(1, number))
    assert node.unhealthy(GPU) == ["card_1", "card_4", "card_7"]
    node.look(RETIRE_AFTER, *gpu_cards(1, 7))
    assert "former name card_1" in node.reasons("card_7")[0]


def test_a_renamed_card_confirmed_by_the_library_waits_until_the_kubelet_was_asked() -> None:
    node = Node(*gpu_cards(1, 1))
    node.look(1, *gpu_cards(1, 4))
    node.library_says(1, 1, 4)
    node.look(0.1, *gpu_cards(1, 4))
    assert "it was card_1 a moment ago" in node.reasons("card_4")[0]
    node.pods_hold({(GPU, "card_1"): TRAIN})
    node.look(1, *gpu_cards(1, 4))
    node.look(SPLIT_SETTLE, *gpu_cards(1, 4))
    assert "still holds it under its former name" in node.reasons("card_4")[0]


def test_a_former_name_is_remembered_while_another_card_briefly_has_the_new_one() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.pods_hold({(GPU, "card_1"): TRAIN})
    node.look(1, *gpu_cards(1, 4))
    node.look(SPLIT_SETTLE, *gpu_cards(1, 4))
    shifted = (*gpu_cards(0, 4), *gpu_cards(1, 7))
    node.look(1, *shifted)
    node.library_says(1, 1, 4)
    node.look(0.1, *shifted)
    node.look(SPLIT_SETTLE, *shifted)
    assert "former name card_1" in node.reasons("card_7")[0]


def test_a_former_name_is_forgotten_with_the_split_that_had_it() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.look(1, *gpu_cards(0, 0), *gpu_cards(1, 4))
    node.library_says(1, 1, 0, 4)
    node.look(0.1, *gpu_cards(0, 0), *gpu_cards(1, 4))
    assert "it was card_1 a moment ago" in node.reasons("card_4")[0]
    node.look(0.1, *gpu_cards(0, 0), *gpu_cards(1, 4, 5))
    node.library_says(2, 2, 4, 5)
    for cards in (gpu_cards(0, 0), gpu_cards(0, 1)):  # card_1 is GPU 0's name from now on
        node.look(10, *cards, *gpu_cards(1, 4, 5))
        node.look(SPLIT_SETTLE, *cards, *gpu_cards(1, 4, 5))
    node.pods_hold({(GPU, "card_1"): TRAIN})
    node.look(10, *gpu_cards(0, 1), *gpu_cards(1, 4))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 1), *gpu_cards(1, 4))
    assert node.healthy(GPU) == ["card_1", "card_4"]


def test_an_answer_at_the_last_moment_counts() -> None:
    node = Node(*gpu_cards(1, 1))
    node.look(1, *gpu_cards(1, 4))
    node.library_says(1, 1, 4)
    node.look(0.1, *gpu_cards(1, 4))
    node.pods_hold({(GPU, "card_1"): TRAIN})
    node.look(SPLIT_SETTLE, *gpu_cards(1, 4))
    assert "still holds it under its former name" in node.reasons("card_4")[0]


def test_a_card_that_a_pod_held_before_the_start_is_listed() -> None:
    node = Node(*gpu_cards(0, 0, 1))
    node.pods_hold(
        {(GPU, "card_0"): Holder("default", "train"), (HALF, "card_1"): Holder("default", "infer")}
    )
    node.look(1, *gpu_cards(0, 0, 1))
    assert (node.healthy(HALF), node.unhealthy(GPU)) == (["card_1"], ["card_0"])


@pytest.mark.parametrize("id_", ["card_x", "", "/dev/vfio/vfio", "card_1/.."])
def test_an_impossible_id_is_not_listed_even_if_a_pod_holds_it(id_: str) -> None:
    node = Node(*gpu_cards(0, 0))
    pod = Holder("default", "train")
    node.pods_hold({(GPU, "card_0"): pod, (GPU, id_): pod, (GPU, "card_7"): pod})
    node.look(1, *gpu_cards(0, 0))
    assert ids(node.devices(GPU)) == ["card_0", "card_7"], "card_7 has gone, and is still held"


def test_a_gpu_that_appears_in_one_scan_only_leaves_no_trace() -> None:
    node = Node()
    node.look(1, *gpu_cards(0, 0))
    node.look(APPEAR_SETTLE)
    node.look(APPEAR_SETTLE, *gpu_cards(0, 0))
    assert node.inventory.lists == ()


def test_a_resource_that_lost_its_devices_is_empty_for_a_while_and_then_removed() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0, 1))
    node.look(RETIRE_AFTER, *gpu_cards(0, 0, 1))
    emptied = node.inventory.list_of(GPU)
    assert emptied is not None
    assert emptied.devices == ()
    node.look(EMPTY_LINGER / 2, *gpu_cards(0, 0, 1))
    assert node.inventory.list_of(GPU) is not None
    node.look(EMPTY_LINGER / 2, *gpu_cards(0, 0, 1))
    assert node.inventory.list_of(GPU) is None


def test_an_emptied_resource_that_gets_a_device_again_stays() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0, 1))
    halves = gpu_cards(0, 0, 1)
    node.look(RETIRE_AFTER - 0.5, *halves, *gpu_cards(1, 2))
    node.look(APPEAR_SETTLE, *halves, *gpu_cards(1, 2))
    node.look(10, *halves, *gpu_cards(1, 2))
    assert node.healthy(GPU) == ["card_2"]


def test_a_reused_id_belongs_to_the_present_card() -> None:
    node = Node(*gpu_cards(0, 0), *gpu_cards(1, 1))
    node.look(1, *gpu_cards(1, 0))
    node.look(SPLIT_SETTLE - 0.1, *gpu_cards(1, 0))
    assert [device.card.present for device in node.devices(GPU)] == [False, True]
    assert (node.healthy(GPU), node.unhealthy(GPU)) == (["card_0"], ["card_1"])
    node.look(0.2, *gpu_cards(1, 0))
    assert [device.card.present for device in node.devices(GPU)] == [True, True]
    assert (node.healthy(GPU), node.unhealthy(GPU)) == (["card_0"], ["card_1"])
    node.look(RETIRE_AFTER, *gpu_cards(1, 0))
    assert (node.healthy(GPU), node.unhealthy(GPU)) == (["card_0"], [])


def test_instances_are_distinguished_by_their_order() -> None:
    node = Node(*gpu_cards(3, 7, 9))
    before = [device.identity for device in node.devices(HALF)]
    assert before == [(3, HALF, 0), (3, HALF, 1)]
    node.look(1, *gpu_cards(3, 1, 2))
    node.look(SPLIT_SETTLE, *gpu_cards(3, 1, 2))
    healthy = [device.identity for device in node.devices(HALF) if device.healthy]
    assert healthy == before, "the names have shifted"


@pytest.mark.parametrize(("claims_count", "healthy"), [(True, False), (False, True)])
def test_a_card_that_a_claim_holds_is_unhealthy_where_claims_count(
    claims_count: bool, healthy: bool
) -> None:
    keeper = InventoryKeeper(claims_count=claims_count)
    seen = Observed(snapshot(card(0, 0, address="0000:3b:00.0")))

    def device(claims: ClaimsSeen | None) -> Device:
        [found] = keeper.update(attrs.evolve(seen, claims=claims), 0.0).lists[0].devices
        return found

    assert device(None).healthy
    held = device(ClaimsSeen(files={"uid-1": CLAIM}))
    assert held.healthy is healthy
    assert ("the claim with uid uid-1 still holds it" in str(held.reasons)) is not healthy


def test_an_id_that_passes_to_another_resource_is_found_under_the_new_one() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, *gpu_cards(0, 0, 1))
    node.look(SPLIT_SETTLE, *gpu_cards(0, 0, 1))
    found = node.inventory.find("card_0")
    assert found is not None
    assert (found.resource, found.healthy) == (HALF, True)
    assert node.inventory.find("card_9") is None


def test_changed_attributes_of_an_accepted_card_are_used() -> None:
    node = Node(*gpu_cards(0, 0))
    node.look(1, card(0, 0, node=NodeState.MISSING))
    found = node.inventory.find("card_0")
    assert found is not None
    assert found.card.node is NodeState.MISSING


def test_a_card_that_stops_reporting_its_gpu_stays_with_it() -> None:
    node = Node(*gpu_cards(0, 0, 1))
    for _ in range(3):
        node.look(10, card(0, 0, parts=2), card(1, None, parts=2))
        assert node.healthy(HALF) == ["card_0", "card_1"]


def test_a_card_that_never_reported_its_gpu_is_not_offered() -> None:
    node = Node(*gpu_cards(0, 0), card(1))
    node.look(10, *gpu_cards(0, 0), card(1))
    assert node.healthy(GPU) == ["card_0"]
    [sentence] = node.inventory.unsettled
    assert "card_1: physical_id is missing, empty or unreadable" in sentence


def test_a_card_with_the_same_name_but_other_memory_is_another_split() -> None:
    keeper = InventoryKeeper()
    whole = attrs.evolve(gpu_cards(0, 0)[0], memory=64 * 1024**3)
    quarter = attrs.evolve(whole, memory=16 * 1024**3)
    unreadable = attrs.evolve(whole, memory=None)

    def usable(card: Card, now: float) -> bool:
        found = keeper.update(Observed(snapshot(card)), now).find("card_0")
        return found is not None and found.healthy

    assert usable(whole, 0)
    assert usable(attrs.evolve(whole, memory=63 * 1024**3), 0.5), "a driver may keep some"
    found = keeper.update(Observed(snapshot(unreadable)), 0.6).find("card_0")
    assert found is not None
    assert found.card.memory == 63 * 1024**3, "as it was last read"
    assert usable(unreadable, 1), "missing data is no fault"
    assert not usable(quarter, 2)
    assert usable(whole, 3), "it was half-way, and back"


def test_a_hung_half_still_counts_for_its_gpus_split() -> None:
    first, second = gpu_cards(0, 0, 1)
    first = attrs.evolve(first, pci_path=("0000:01:00.0",))
    hung = Card(second.name, second.number, pci_path=("0000:01:00.0",), hung=True)
    inventory = InventoryKeeper().update(Observed(snapshot(first, hung)), 0)
    assert [each.resource for each in inventory.lists] == [HALF]


def test_memory_that_a_driver_reserves_does_not_make_a_new_split() -> None:
    keeper = InventoryKeeper()
    card = attrs.evolve(gpu_cards(0, 0)[0], memory=64 * 1024**3)
    for now in range(20):
        found = keeper.update(Observed(snapshot(card)), now).find("card_0")
        assert found is not None
        assert found.healthy
        card = attrs.evolve(card, memory=(card.memory or 0) - 4096)
