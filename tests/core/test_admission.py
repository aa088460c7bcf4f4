"""Requests get exactly their cards, or a refusal that the pod's author can act on."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.admission import PreferenceRequest, cards_for, preferred
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.placement.topology import build_topology
from biren_plugin.errors import InvalidRequest, NotReady
from tests.support.cards import GPU, HALF, card, devices, listed

OFFERED = listed(GPU, *devices(GPU, 0, 1, 2))
HALVES = listed(HALF, *devices(HALF, 5, 6))
NODE = Inventory((OFFERED, HALVES))


def test_each_container_gets_its_own_cards_in_order() -> None:
    assert cards_for([["card_2", "card_0"], [], ["card_1"]], OFFERED, NODE) == [
        [card(2), card(0)],
        [],
        [card(1)],
    ]


@pytest.mark.parametrize("requests", [[["card_0", "card_0"]], [["card_0"], ["card_0"]]])
def test_a_card_requested_twice_is_refused(requests: list[list[str]]) -> None:
    with pytest.raises(InvalidRequest, match="card_0 is asked for twice"):
        cards_for(requests, OFFERED, NODE)


@pytest.mark.parametrize("device_id", ["card_9", "", "/dev/biren/card_0", "card_00"])
def test_an_unknown_id_is_refused_with_advice(device_id: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{device_id} is not a device of this node; delete"):
        cards_for([[device_id]], OFFERED, NODE)


def test_a_card_no_longer_offered_is_refused() -> None:
    less = listed(GPU, *devices(GPU, 0))
    with pytest.raises(InvalidRequest, match="card_1 is not a device of this node"):
        cards_for([["card_1"]], less, NODE)


def test_a_card_of_another_resource_is_refused_with_its_resource() -> None:
    with pytest.raises(InvalidRequest, match=f"card_5 is a {HALF}, not a {GPU}"):
        cards_for([["card_5"]], OFFERED, NODE)


def test_the_refusal_of_a_moved_id_names_its_new_resource() -> None:
    [retired] = devices(GPU, 5)
    node = Inventory((listed(GPU, retired.because("replaced")), HALVES))
    with pytest.raises(InvalidRequest, match=f"card_5 is a {HALF}, not a {GPU}"):
        cards_for([["card_5"]], OFFERED, node)


def test_an_unhealthy_card_is_refused_with_its_reasons() -> None:
    [device] = devices(GPU, 0)
    offered = listed(GPU, device.because("its node is missing", "it is hot"))
    with pytest.raises(NotReady, match="card_0 is Unhealthy: its node is missing; it is hot;"):
        cards_for([["card_0"]], offered, Inventory((offered,)))


def choice(
    available: Sequence[str], must: Sequence[str], size: int, offered: DeviceList = OFFERED
) -> list[str]:
    """What is preferred on a node whose cards are all alike."""
    request = PreferenceRequest(tuple(available), tuple(must), size)
    topology = build_topology(device.card for device in offered.devices)
    return preferred(request, offered, topology, "packed")


def test_a_choice_is_ordered_by_number() -> None:
    offered = listed(GPU, *devices(GPU, 2, 9, 10))
    assert choice(["card_10", "card_9", "card_2"], [], 2, offered) == ["card_2", "card_9"]


def test_a_choice_keeps_the_required_cards() -> None:
    available = ["card_0", "card_1", "card_2"]
    assert choice(available, ["card_2"], 2) == ["card_0", "card_2"]
    assert choice(available, ["card_2"], 1) == ["card_2"]


def test_a_choice_keeps_the_required_cards_whatever_they_are() -> None:
    sick, well = devices(GPU, 0, 1)
    offered = listed(GPU, sick.because("its node is missing"), well)
    must = ["card_0", "card_7"]
    assert choice([*must, "card_1"], must, 3, offered) == ["card_0", "card_1", "card_7"]


def test_a_choice_leaves_out_cards_not_offered_as_healthy() -> None:
    bad, good = devices(GPU, 0, 1)
    offered = listed(GPU, bad.because("its node is missing"), good)
    assert choice(["card_0", "card_1", "card_7"], [], 3, offered) == ["card_1"]


@pytest.mark.parametrize(
    ("available", "must", "size", "says"),
    [
        (["card_0"], [], -1, "a choice of -1 devices is asked for"),
        (["card_0", "card_1"], ["card_0", "card_1"], 1, "2 devices must be in a choice of 1"),
        (["card_0", "card_0"], [], 1, "card_0 is named twice"),
        (["card_0", "card_1"], ["card_0", "card_0"], 2, "card_0 is named twice"),
    ],
)
def test_a_contradictory_choice_is_refused(
    available: Sequence[str], must: Sequence[str], size: int, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        choice(available, must, size)


@st.composite
def wishes(draw: st.DrawFn) -> tuple[list[str], list[str], int, DeviceList]:
    """A request as the kubelet makes them: available includes what must be included."""
    node = devices(GPU, *range(12))
    sick = draw(st.sets(st.sampled_from(node)))
    offered = listed(GPU, *(each.because("sick") if each in sick else each for each in node))
    available = draw(st.lists(st.sampled_from([f"card_{n}" for n in range(14)]), unique=True))
    must = draw(st.lists(st.sampled_from(available), unique=True)) if available else []
    return available, must, draw(st.integers(len(must), 14)), offered


@given(wishes())
def test_a_choice_has_only_available_cards_and_as_many_as_possible(
    wish: tuple[list[str], list[str], int, DeviceList],
) -> None:
    available, must, size, offered = wish
    chosen = choice(available, must, size, offered)
    healthy = {device.id for device in offered.devices if device.healthy}
    usable = set(must) | (set(available) & healthy)
    assert len(chosen) == len(set(chosen)) == min(size, len(usable))
    assert set(must) <= set(chosen) <= usable


@given(wishes(), st.data())
def test_a_choice_does_not_depend_on_the_order_of_the_request(
    wish: tuple[list[str], list[str], int, DeviceList], data: st.DataObject
) -> None:
    available, must, size, offered = wish
    first = choice(available, must, size, offered)
    shuffled = data.draw(st.permutations(available))
    assert choice(shuffled, must, size, offered) == first
    assert choice(shuffled, must[::-1], size, offered) == first


def test_cards_without_a_place_come_last_unless_they_are_required() -> None:
    offered = listed(GPU, *devices(GPU, 0, 7, 8))
    topology = build_topology([card(0)])

    def chosen(must: Sequence[str], size: int) -> list[str]:
        request = PreferenceRequest(("card_0", "card_7", "card_8"), tuple(must), size)
        return preferred(request, offered, topology, "packed")

    assert chosen([], 1) == ["card_0"]
    assert chosen([], 2) == ["card_0", "card_7"]
    assert chosen(["card_8"], 1) == ["card_8"]
    assert chosen(["card_8"], 2) == ["card_0", "card_8"]
