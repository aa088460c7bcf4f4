"""From any stored state, the writes make the wanted pool, and no write is superfluous.

The API server is played by a dictionary that knows its rules: versions, generations as they are sent.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.dra.slice_writes import (
    NOTHING_DROPPED,
    Create,
    Delete,
    Owner,
    Update,
    Write,
    plain,
    writes_for,
)

OWNER = Owner("node-7", "uid-7")
Object = dict[str, Any]


class Stored:
    """Slices by name."""

    def __init__(self) -> None:
        self.slices: dict[str, Object] = {}
        self._numbers = itertools.count(1)
        self.times = itertools.count(1)

    def make(self, write: Write) -> None:
        match write:
            case Delete(stored=stored):
                del self.slices[stored["metadata"]["name"]]
            case Update(slice=sent):
                assert sent["metadata"]["name"] in self.slices
                self._put(sent["metadata"]["name"], sent)
            case Create(slice=sent):
                self._put(f"{sent['metadata']['generateName']}{next(self._numbers):05d}", sent)

    def _put(self, name: str, sent: Object) -> None:
        stored = copy.deepcopy(sent)
        stored["metadata"] = {
            "name": name,
            "uid": name,
            "resourceVersion": str(next(self._numbers)),
        }
        for device in stored["spec"]["devices"]:
            for taint in device.get("taints") or ():
                taint.setdefault("timeAdded", f"time {next(self.times)}")
        self.slices[name] = stored

    def usable(self) -> list[list[str]] | None:
        """Return the devices in a scheduler's view, None for an incomplete pool."""
        highest = max((s["spec"]["pool"]["generation"] for s in self.slices.values()), default=0)
        newest = [
            self.slices[name]
            for name in sorted(self.slices)
            if self.slices[name]["spec"]["pool"]["generation"] == highest
        ]
        if not newest or {s["spec"]["pool"]["resourceSliceCount"] for s in newest} != {len(newest)}:
            return None
        return [[device["name"] for device in s["spec"]["devices"]] for s in newest]


def sync(stored: Stored, wanted: Sequence[Sequence[Object]], failing_after: int = 1000) -> int:
    writes = writes_for(wanted, stored.slices, OWNER)
    for write in writes[:failing_after]:
        stored.make(write)
    return len(writes)


def pool(*slices: Sequence[str], taint: str = "") -> list[list[Object]]:
    return [
        [
            {
                "name": name,
                **({"taints": [{"key": taint, "effect": "NoSchedule"}]} if taint else {}),
            }
            for name in names
        ]
        for names in slices
    ]


names = st.lists(st.sampled_from("abcdef"), max_size=3, unique=True)
pools = st.builds(
    lambda slices, taint: pool(*slices, taint=taint),
    st.lists(names, min_size=1, max_size=4),
    st.sampled_from(["", "gpu.birentech.com/ecc"]),
)
steps = st.lists(
    st.tuples(pools, st.integers(0, 6), st.sets(st.integers(0, 4), max_size=3)), max_size=6
)


@given(steps, pools)
def test_after_any_history_one_quiet_round_stores_the_wanted_pool(
    history: list[tuple[list[list[Object]], int, set[int]]], wanted: list[list[Object]]
) -> None:
    stored = Stored()
    for wish, failing_after, deleted in history:
        sync(stored, wish, failing_after)
        for place in sorted(deleted, reverse=True):
            if place < len(stored.slices):
                del stored.slices[sorted(stored.slices)[place]]
    sync(stored, wanted)
    assert stored.usable() == [[device["name"] for device in each] for each in wanted]
    assert sync(stored, wanted) == 0, "a second round has nothing to write"


def test_the_first_publication_creates_each_slice_once() -> None:
    writes = writes_for(pool("ab", "c"), {}, OWNER)
    assert [type(each) for each in writes] == [Create, Create]
    first = writes[0]
    assert isinstance(first, Create)
    spec = first.slice["spec"]
    assert spec["pool"] == {"name": "node-7", "generation": 1, "resourceSliceCount": 2}
    assert first.slice["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "node-7", "uid": "uid-7", "controller": True}
    ]


def test_a_node_without_cards_publishes_one_empty_slice() -> None:
    stored = Stored()
    assert sync(stored, [[]]) == 1
    assert stored.usable() == [[]]


def test_one_changed_slice_keeps_the_generation_and_two_start_a_new_one() -> None:
    stored = Stored()
    sync(stored, pool("a", "b", "c"))
    sync(stored, pool("a", "bx", "c"))
    assert {s["spec"]["pool"]["generation"] for s in stored.slices.values()} == {1}
    sync(stored, pool("ax", "b", "c"))
    assert {s["spec"]["pool"]["generation"] for s in stored.slices.values()} == {2}


def test_a_deleted_slice_comes_back_in_its_generation() -> None:
    stored = Stored()
    sync(stored, pool("a", "b"))
    del stored.slices[min(stored.slices)]
    assert sync(stored, pool("a", "b")) == 1
    assert stored.usable() == [["a"], ["b"]]


def test_a_changed_slice_beside_a_deleted_one_starts_a_new_generation() -> None:
    """In the old generation, a scheduler could see the changed slice with what was deleted."""
    stored = Stored()
    sync(stored, pool("a", "b"))
    del stored.slices[min(stored.slices)]
    sync(stored, pool("a", "bx"))
    assert {s["spec"]["pool"]["generation"] for s in stored.slices.values()} == {2}
    assert stored.usable() == [["a"], ["b", "x"]]


def test_the_places_of_many_slices_are_read_from_their_names() -> None:
    stored, wanted = Stored(), pool(*(f"{place:c}" for place in range(ord("a"), ord("a") + 18)))
    assert sync(stored, wanted) == 18
    assert sync(stored, wanted) == 0
    assert stored.usable() == [[device["name"] for device in each] for each in wanted]


def test_an_unchanged_taint_keeps_the_time_at_which_it_was_added() -> None:
    stored = Stored()
    sync(stored, pool("a", taint="gpu.birentech.com/ecc"))
    (before,) = stored.slices.values()
    sync(stored, pool("ab", taint="gpu.birentech.com/ecc"))
    (after,) = stored.slices.values()
    old, new = (each["spec"]["devices"][0]["taints"][0]["timeAdded"] for each in (before, after))
    assert old == new


def test_a_field_that_the_server_drops_is_not_sent_again() -> None:
    stored = Stored()
    wanted = pool("a", taint="gpu.birentech.com/ecc")
    sync(stored, wanted)
    (found,) = stored.slices.values()
    sent = plain(found["spec"])
    del found["spec"]["devices"][0]["taints"]
    assert writes_for(wanted, stored.slices, OWNER, NOTHING_DROPPED)
    assert not writes_for(wanted, stored.slices, OWNER, {sent: plain(found["spec"])})


def test_slices_of_another_pool_are_deleted() -> None:
    stored = Stored()
    sync(stored, pool("a"))
    (found,) = stored.slices.values()
    foreign = copy.deepcopy(found)
    foreign["metadata"]["name"] = "00000-old"
    foreign["spec"]["pool"]["name"] = "old-name"
    stored.slices["00000-old"] = foreign
    writes = writes_for(pool("a"), stored.slices, OWNER)
    assert [type(each) for each in writes] == [Delete]
