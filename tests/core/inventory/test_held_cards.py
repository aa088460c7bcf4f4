"""A card that a pod holds without a record in the kubelet is Unhealthy, with the reason."""

from biren_plugin.core.inventory.held_cards import unless_held_unnoticed
from biren_plugin.core.observed import Holder
from tests.support.cards import GPU, devices


def test_a_card_of_a_forgotten_pod_is_unhealthy_with_the_reason() -> None:
    card_0, card_1 = devices(GPU, 0, 1)
    lost = {(GPU, "card_0"): Holder("default", "train", "main", forgotten=True)}
    assert unless_held_unnoticed(card_1, lost) == card_1
    (reason,) = unless_held_unnoticed(card_0, lost).reasons
    assert reason.startswith("pod default/train still holds it")


def test_a_card_that_a_pod_may_hold_is_unhealthy_too() -> None:
    (card,) = devices(GPU, 0)
    lost = {(GPU, "card_0"): Holder("default", "train", forgotten=True, perhaps=True)}
    (reason,) = unless_held_unnoticed(card, lost).reasons
    assert "pod default/train may hold it" in reason


def test_a_card_that_the_kubelet_knows_to_be_held_stays_healthy() -> None:
    (card,) = devices(GPU, 0)
    assert unless_held_unnoticed(card, {(GPU, "card_0"): Holder("default", "train")}) == card
