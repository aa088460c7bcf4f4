"""The node's cards as HAMi reads them: recorded form, our verdicts, and an order that suits its choice."""

import json

import attrs
import pytest

from biren_plugin.core.hami.card_record import (
    LEAVING,
    faulty_cards,
    reporting,
    write_cards,
)
from biren_plugin.core.model import Device
from biren_plugin.core.parse.brml import P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.topology import NO_TOPOLOGY
from biren_plugin.core.placement.topology_builder import build_topology
from tests.support.cards import GPU
from tests.support.hami_books import EIGHT, Books, Wish


def device(number: int, numa: int | None = 0, *reasons: str) -> Device:
    card = Card(f"card_{number}", number, number, memory=65024 * 1024**2, numa_node=numa)
    return Device(card, GPU, reasons)


def test_eight_cards_read_as_the_recorded_list_does() -> None:
    text = write_cards([device(number, number // 4) for number in range(8)], NO_TOPOLOGY)
    assert text is not None
    defaults = {"index": 0, "numa": 0}
    assert json.loads(text) == [{**defaults, **each} for each in json.loads(EIGHT)]


def test_a_faulty_card_is_listed_and_never_chosen() -> None:
    books = Books()
    books.take_list(write_cards([device(0), device(1, 0, "3 ECC errors")], NO_TOPOLOGY) or "")
    assert [each["health"] for each in books.cards] == [True, False]
    assert books.order() == ["card_0"]


def test_no_card_is_no_list_since_an_empty_one_takes_nothing_back() -> None:
    assert write_cards([], NO_TOPOLOGY) is None


def test_the_last_cards_leave_as_faulty_ones() -> None:
    books = Books()
    books.take_list(EIGHT)
    books.take_list(faulty_cards(EIGHT) or "")
    assert len(books.cards) == 8
    assert books.fit(Wish((1,)), ()) is None


@pytest.mark.parametrize("stored", ["", "[]", "not JSON", "{}", "[1]", "null", "[" * 100_000])
def test_a_list_without_cards_has_none_to_take_back(stored: str) -> None:
    assert faulty_cards(stored) is None


def test_a_card_that_hami_would_lose_is_not_listed() -> None:
    odd = attrs.evolve(device(1), card=Card("0000:07:00.0", 7))
    text = write_cards([device(0), odd], NO_TOPOLOGY)
    assert [each["id"] for each in json.loads(text or "")] == ["card_0"]


@pytest.mark.parametrize("size", [2, 4])
def test_hamis_choice_from_the_end_takes_linked_cards(size: int) -> None:
    """Two groups of linked cards whose numbers alternate, on one NUMA node."""
    cards = [device(number).card for number in range(8)]
    links = {
        (one, two): P2PLink.DIRECT if one % 2 == two % 2 else P2PLink.NONE
        for two in range(8)
        for one in range(two)
    }
    topology = build_topology(cards, links)
    books = Books()
    books.take_list(write_cards([Device(each, GPU) for each in cards], topology) or "")
    used: list[str] = []
    for _ in range(8 // size):
        (chosen,) = books.fit(Wish((size,)), used) or [[]]
        assert topology.describe(chosen) == "directly linked"
        used += chosen


def test_product_and_unknown_facts() -> None:
    card = Card("card_3", 3, product="0x0106")
    (entry,) = json.loads(write_cards([Device(card, GPU)], NO_TOPOLOGY) or "")
    assert entry["custominfo"] == {"product": "0x0106"}
    assert entry["devmem"] == 0
    assert "numa" not in entry


def test_both_annotations_go_together() -> None:
    assert reporting("[…]", "2026-11-28 01:35:29") == {
        "hami.io/node-biren-register": "[…]",
        "hami.io/node-handshake-biren": "Reported_2026-11-28 01:35:29",
    }
    assert LEAVING["hami.io/node-biren-register"] is None
