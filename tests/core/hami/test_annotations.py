"""The annotations of HAMi and the plugin: recorded texts, our verdicts, and an order that suits its choice."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.hami.annotations import (
    LEAVING,
    annotating,
    annotation,
    daemonset_of,
    faulty_cards,
    is_leaving,
    is_usable_id,
    read_entries,
    read_lock,
    reporting,
    without_entries,
    write_cards,
)
from biren_plugin.core.model import Device
from biren_plugin.core.parse.api_shapes import Object
from biren_plugin.core.parse.brml import P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.topology import NO_TOPOLOGY, build_topology
from tests.support.cards import GPU
from tests.support.hami_books import EIGHT, Books, Wish, read, write
from tests.support.hami_books import EIGHT as RECORDED

# Eight free cards of two NUMA nodes; where the recording had fewer free, `used` are the others.
RECORDINGS = [
    (Wish((1,)), (), "card_7,Biren,0,0:;"),
    (Wish((2,)), ("card_7",), "card_6,Biren,0,0:card_5,Biren,0,0:;"),
    (Wish((1, 1)), (), "card_7,Biren,0,0:;card_6,Biren,0,0:;"),
    (Wish((0, 1)), ("card_7", "card_6"), ";card_5,Biren,0,0:;"),
    (
        Wish((1, 0, 2)),
        ("card_7", "card_6", "card_5"),
        "card_4,Biren,0,0:;;card_3,Biren,0,0:card_2,Biren,0,0:;",
    ),
    (Wish((1,), init=(0,)), (), ";card_7,Biren,0,0:;"),
    (Wish((2,), init=(1,)), (), "card_7,Biren,0,0:;card_7,Biren,0,0:card_6,Biren,0,0:;"),
    (Wish((1,), init=(2,)), (), "card_7,Biren,0,0:card_6,Biren,0,0:;card_7,Biren,0,0:;"),
    (Wish((1, 1), init=(1,)), (), "card_7,Biren,0,0:;card_7,Biren,0,0:;card_6,Biren,0,0:;"),
    (Wish((0,), init=(1,)), (), "card_7,Biren,0,0:;;"),
]


@pytest.mark.parametrize(("wish", "used", "text"), RECORDINGS)
def test_recorded_entries_read_as_the_cards_of_each_container(
    wish: Wish, used: tuple[str, ...], text: str
) -> None:
    books = Books()
    books.take_list(RECORDED)
    entries = books.fit(wish, used)
    assert entries is not None
    assert write(entries) == text, "the stand-in scheduler writes what the real one wrote"
    assert read_entries(text) == tuple(frozenset(each) for each in entries)


def test_an_emptied_entry_keeps_its_place() -> None:
    text = "card_7,Biren,0,0:;;card_6,Biren,0,0:card_5,Biren,0,0:;"
    first = without_entries(text, 1)
    assert first == ";;card_6,Biren,0,0:card_5,Biren,0,0:;"
    assert without_entries(first, 3) == ";;;"
    assert without_entries("card_7,Biren,0,0:;", 1) == ";", "as the contract has it"


@given(st.lists(st.lists(st.sampled_from([f"card_{n}" for n in range(12)]), unique=True)))
def test_what_the_scheduler_writes_is_read_back(entries: list[list[str]]) -> None:
    text = write(entries)
    assert [set(each) for each in read(text)] == [set(each) for each in read_entries(text)]


@given(st.text())
def test_no_text_raises(text: str) -> None:
    read_entries(text)
    read_lock(text)
    is_usable_id(text)


def test_a_lock_names_its_pod() -> None:
    lock = read_lock("2026-11-28T01:35:41Z,default,p1")
    assert lock is not None
    assert lock.is_for("default", "p1")
    assert not lock.is_for("default", "p10")


@pytest.mark.parametrize("text", ["", "2026-11-28T01:35:41Z", "a,b", "a,b,c,d", ",,", "t,ns,"])
def test_a_text_that_is_no_lock_names_no_pod(text: str) -> None:
    assert read_lock(text) is None


def test_ids_with_separators_are_lost_by_hami() -> None:
    assert is_usable_id("card_7")
    assert is_usable_id("/dev/vfio/7")
    assert not is_usable_id("0000:07:00.0")
    assert not is_usable_id("")


def test_an_annotation_that_is_missing_reads_empty() -> None:
    assert annotation({}, "a") == annotation({"metadata": {"annotations": None}}, "a") == ""
    assert annotation({"metadata": {"annotations": {"a": "b"}}}, "a") == "b"


def test_a_patch_removes_what_is_none() -> None:
    assert annotating({"a": None, "b": "c"}, uid="7") == {
        "metadata": {"annotations": {"a": None, "b": "c"}, "uid": "7"}
    }


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


def daemonset(selector: dict[str, str] | None = None, **metadata: str) -> Object:
    return {"metadata": metadata, "spec": {"template": {"spec": {"nodeSelector": selector}}}}


@pytest.mark.parametrize(
    ("found", "leaves"),
    [
        (None, True),
        (daemonset(deletionTimestamp="2026-11-28T01:35:42Z"), True),
        (daemonset({"birentech.com": "cpu"}), True),
        (daemonset({"birentech.com": "gpu"}), False),
        (daemonset(), False),
    ],
)
def test_a_node_is_left_when_no_pod_follows(found: Object | None, leaves: bool) -> None:
    node = {"metadata": {"labels": {"birentech.com": "gpu", "zone": "a"}}}
    assert is_leaving(found, node) is leaves


def test_a_node_without_labels_is_left_by_a_daemonset_that_selects_some() -> None:
    assert is_leaving(daemonset({"a": "b"}), {"metadata": {}})


def test_a_pod_names_its_daemonset() -> None:
    owners = [{"kind": "Other", "name": "x"}, {"kind": "DaemonSet", "name": "br-gpu-device-plugin"}]
    assert daemonset_of({"metadata": {"ownerReferences": owners}}) == "br-gpu-device-plugin"
    assert daemonset_of({"metadata": {}}) is None
    assert daemonset_of({}) is None


def required(*terms: dict[str, Any]) -> Object:
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {
        "metadata": {},
        "spec": {"template": {"spec": {"affinity": {"nodeAffinity": affinity}}}},
    }


def expression(operator: str, key: str, *values: str, of: str = "Expressions") -> dict[str, Any]:
    return {f"match{of}": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("term", "leaves"),
    [
        (expression("In", "zone", "a", "b"), False),
        (expression("In", "zone", "c"), True),
        (expression("NotIn", "zone", "a"), True),
        (expression("NotIn", "pool", "a"), False),
        (expression("Exists", "zone"), False),
        (expression("Exists", "pool"), True),
        (expression("DoesNotExist", "pool"), False),
        (expression("DoesNotExist", "zone"), True),
        (expression("Gt", "slots", "7"), False),
        (expression("Gt", "slots", "8"), True),
        (expression("Lt", "slots", "9"), False),
        (expression("Lt", "slots", "8"), True),
        (expression("Lt", "zone", "9"), True),
        (expression("Lt", "pool", "9"), True),
        (expression("In", "metadata.name", "n1", of="Fields"), False),
        (expression("In", "metadata.name", "n2", of="Fields"), True),
        (expression("NewOne", "zone"), False),
        ({}, True),
    ],
)
def test_a_node_that_the_required_affinity_leaves_out_is_left(
    term: dict[str, Any], leaves: bool
) -> None:
    """The chart's value `affinity` selects nodes as its `nodeSelector` does."""
    node = {"metadata": {"name": "n1", "labels": {"zone": "a", "slots": "8"}}}
    assert is_leaving(required(term), node) is leaves
    assert not is_leaving(required(term, expression("Exists", "zone")), node), "one term is enough"
