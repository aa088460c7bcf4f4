"""A card is Unhealthy only for what is known to be wrong, and says what to do."""

import pytest

from biren_plugin.core.health import judge
from biren_plugin.core.model import Card, Device, NodeState
from tests.cards import GPU, card


def test_card_with_its_node_is_healthy() -> None:
    assert judge(Device(card(3), GPU)).healthy


def test_missing_data_is_no_fault() -> None:
    assert judge(Device(Card("card_3", 3), GPU)).healthy


@pytest.mark.parametrize(
    ("node", "says"),
    [(NodeState.MISSING, "is missing; see"), (NodeState.OTHER, "is no character device; remove")],
)
def test_card_without_a_usable_node_is_unhealthy(node: NodeState, says: str) -> None:
    judged = judge(Device(card(3, node=node), GPU))
    assert not judged.healthy
    [reason] = judged.reasons
    assert "/dev/biren/card_3" in reason
    assert says in reason


def test_reasons_that_a_device_came_with_stay() -> None:
    device = Device(card(3, node=NodeState.MISSING), GPU, ("it was replaced",))
    assert judge(device).reasons[0] == "it was replaced"
    assert len(judge(device).reasons) == 2
    settled = Device(card(3), GPU, ("it was replaced",))
    assert judge(settled) == settled
