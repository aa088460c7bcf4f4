"""HAMi's record, the kubelet's and the containers' agree, or the pod is refused."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from biren_plugin.core.hami.annotations import read_entries, without_entries
from biren_plugin.core.hami.promises import (
    Match,
    Mismatch,
    Progress,
    Promise,
    Unmatched,
    match,
    preferred_by_promise,
    promise_of,
    waiting,
)
from tests.support.examples import examples
from tests.support.hami_books import EIGHT, Books, Wish, write

ALL = frozenset(f"card_{number}" for number in range(8))


def pod(name: str, text: str, **about: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": about.get("version", "7"),
            "annotations": {
                "hami.io/vgpu-node": about.get("chosen", "n1"),
                "hami.io/Biren-devices-to-allocate": text,
                "hami.io/Biren-devices-allocated": about.get("record", text),
                "hami.io/bind-phase": about.get("bind_phase", "allocating"),
                "hami.io/bind-time": about.get("bind_time", "1795829741"),
            },
        },
        "spec": {"nodeName": about.get("node", "n1")},
        "status": about.get("status", {"phase": "Pending"}),
    }


def cards(*numbers: int) -> frozenset[str]:
    return frozenset(f"card_{number}" for number in numbers)


ONE = "card_7,Biren,0,0:;"


@pytest.mark.parametrize(
    "found",
    [
        pod("a", ";"),
        pod("a", ""),
        pod("a", ONE, chosen="n2"),
        pod("a", ONE, node=None),
        pod("a", ONE, bind_phase="success"),
        pod("a", ONE, status={"phase": "Running"}),
        pod("a", ONE, status={"phase": "Failed"}),
        pod("a", ONE, status={"phase": "Pending", "startTime": "2026-11-28T01:35:42Z"}),
        {},
    ],
)
def test_a_pod_that_the_kubelet_will_not_ask_for_is_not_waited_for(found: dict[str, Any]) -> None:
    assert waiting([found], "n1", Progress()) == []


def test_pods_wait_in_the_order_of_their_binding() -> None:
    pods = [
        pod("late", ONE, bind_time="12"),
        pod("second", ONE, bind_time="9", version="31"),
        pod("first", ONE, bind_time="9", version="30"),
        pod("odd", ONE, bind_time="soon"),
    ]
    assert [each.pod for each in waiting(pods, "n1", Progress())] == [
        "odd", "first", "second", "late",
    ]  # fmt: skip


def test_a_pod_whose_admission_has_begun_goes_on_before_others() -> None:
    pods = [
        pod("first", ONE),
        pod("begun", write([["card_5"], ["card_4"]]), bind_time="9999999999"),
    ]
    progress = Progress({"uid-begun": 1})
    promises = waiting(pods, "n1", progress)
    assert [each.pod for each in promises] == ["begun", "first"]
    assert preferred_by_promise(promises, progress, ALL, (), 1) == cards(4)


def test_a_card_that_is_not_free_is_not_preferred() -> None:
    promises = waiting([pod("a", ONE)], "n1", Progress())
    assert preferred_by_promise(promises, Progress(), cards(7), (), 1) == cards(7)
    assert preferred_by_promise(promises, Progress(), ALL - cards(7), (), 1) is None
    assert preferred_by_promise(promises, Progress(), ALL, cards(6), 1) is None
    assert preferred_by_promise([], Progress(), ALL, (), 1) is None


def test_other_cards_than_promised_are_refused_with_a_sentence() -> None:
    promises = waiting([pod("a", ONE)], "n1", Progress())
    found = match(promises, Progress(), ["card_6"])
    assert isinstance(found, Mismatch)
    assert found.promise == promises[0]
    assert found.text.startswith(
        "HAMi promised card_7 to default/a, and the kubelet asks for card_6"
    )


def test_another_number_takes_no_promised_card_and_breaks_no_promise() -> None:
    promises = waiting([pod("a", ONE)], "n1", Progress())
    taken = match(promises, Progress(), ["card_7", "card_6"])
    assert isinstance(taken, Mismatch)
    assert taken.promise is None
    assert isinstance(match(promises, Progress(), ["card_5", "card_6"]), Unmatched)
    assert isinstance(match([], Progress(), ["card_5"]), Unmatched)


def test_a_later_entry_is_meant_only_where_another_daemon_may_have_begun() -> None:
    text = write([["card_7"], ["card_6", "card_5"]])
    (promise,) = waiting([pod("a", text, bind_time="100")], "n1", Progress())
    asked = ["card_5", "card_6"]
    assert match([promise], Progress(since=100), asked) == Match(promise, 1, is_last=True)
    assert isinstance(match([promise], Progress(since=99), asked), Unmatched | Mismatch)
    begun = Progress(since=100).plus(promise, 0)
    assert match([promise], begun, asked) == Match(promise, 1, is_last=True)


def test_a_pod_without_an_object_is_no_promise() -> None:
    assert promise_of({"metadata": None, "status": None}, "n1") is None


# The whole way of pods, over random lives -----------------------------------------------------------


class Life:
    """HAMi's books, a kubelet and the plugin's decisions on one node, with what each believes."""

    def __init__(self) -> None:
        self.books = Books()
        self.books.take_list(EIGHT)
        self.pods: dict[str, dict[str, Any]] = {}
        self.record: dict[str, list[list[str]]] = {}
        self.kubelet: dict[str, list[frozenset[str]]] = {}
        self.progress = Progress()
        self.now = 1000

    def used(self) -> set[str]:
        """As HAMi counts: until the pod is gone or has failed."""
        return {card for entries in self.record.values() for each in entries for card in each}

    def held(self) -> set[str]:
        return {card for entries in self.kubelet.values() for each in entries for card in each}

    def bind(self, name: str, wish: Wish) -> bool:
        entries = self.books.fit(wish, self.used())
        if entries is None:
            return False
        self.now += 1
        self.record[name] = entries
        self.pods[name] = pod(name, write(entries), bind_time=str(self.now))
        return True

    def admit(self, name: str, wish: Wish, data: Any) -> bool:
        """The kubelet's admission of one pod; whether it was admitted."""
        got: list[frozenset[str]] = []
        self.kubelet[name] = got
        reusable: set[str] = set()
        for place, size in enumerate(wish.in_order):
            if not size:
                got.append(frozenset())
                continue
            if data.draw(st.booleans(), label="the daemon restarts"):
                self.progress = Progress(since=self.now)
            reused = sorted(reusable)
            must = data.draw(st.permutations(reused), label="order of reused")[:size]
            free = ALL - (self.held() - set(must))
            ids = set(must)
            promises = waiting(self.pods.values(), "n1", self.progress)
            if len(ids) < size:
                hint = preferred_by_promise(promises, self.progress, free, frozenset(must), size)
                rest = sorted(free - ids, key=lambda card: (card not in (hint or ()), card))
                ids |= set(rest[: size - len(ids)])
            found = match(promises, self.progress, ids)
            if not isinstance(found, Match):
                assert isinstance(found, Mismatch | Unmatched)
                if isinstance(found, Unmatched):
                    assert not ids & self.promised_to_others(name)
                self.forget(name)
                return False
            assert found.promise.pod == name, "the lock leaves one pod at a time"
            self.progress = self.progress.plus(found.promise, found.place)
            if data.draw(st.booleans(), label="the API server stores it"):
                annotations = self.pods[name]["metadata"]["annotations"]
                key = "hami.io/Biren-devices-to-allocate"
                annotations[key] = without_entries(annotations[key], place + 1)
            got.append(frozenset(ids))
            if place < len(wish.init):
                reusable |= ids
            else:
                reusable -= ids
        self.pods[name]["status"] = {"phase": "Pending", "startTime": "now"}
        return True

    def promised_to_others(self, name: str) -> set[str]:
        return {
            card
            for other, found in self.pods.items()
            if other != name and not promise_of(found, "n1").admitted  # type: ignore[union-attr]
            for entry in read_entries(found["metadata"]["annotations"]["hami.io/Biren-devices-to-allocate"])
            for card in entry
        }  # fmt: skip

    def forget(self, name: str) -> None:
        del self.pods[name], self.record[name], self.kubelet[name]


wishes = st.builds(
    Wish,
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    st.one_of(st.just(()), st.tuples(st.integers(0, 3))),
)


@examples(200)
@given(st.data())
def test_records_of_hami_kubelet_and_containers_never_differ(data: Any) -> None:
    life = Life()
    for number in range(data.draw(st.integers(1, 6), label="pods")):
        if life.record and data.draw(st.booleans(), label="one ends"):
            life.forget(data.draw(st.sampled_from(sorted(life.record)), label="which"))
        wish = data.draw(wishes)
        assume(sum(wish.in_order))
        name = f"p{number}"
        if not life.bind(name, wish):
            continue
        if life.admit(name, wish, data):
            assert life.kubelet[name] == [frozenset(each) for each in life.record[name]]
        elif not sum(wish.init):
            raise AssertionError("a pod without cards for init containers is always admitted")
        assert life.held() <= life.used(), "no card is held that HAMi believes free"


@given(st.text(), st.text(), st.text())
def test_no_pod_raises(text: str, bind_time: str, version: str) -> None:
    found = pod("a", text, bind_time=bind_time, version=version)
    promises = waiting([found], "n1", Progress())
    match(promises, Progress(), ["card_1"])
    assert isinstance(promise_of(found, "n1"), Promise | None)
