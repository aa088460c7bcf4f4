"""Who holds a card is known, or in doubt, whatever a kubelet forgets, and only for as long as it may matter."""

import pickle
from collections.abc import Iterable, Sequence

import pytest

from biren_plugin.core.inventory.holder_memory import FORGET_AFTER, HolderMemory
from biren_plugin.core.inventory.kubelet_start import BATCH, LISTING
from biren_plugin.core.inventory.unreported_allocations import RECORDED
from biren_plugin.core.observed import Holder, Holders, KubeletView
from tests.support.cards import GPU

TRAIN = Holder("default", "train", "main")
SERVE = Holder("team", "serve", "main")
PROXY = ("kube-system", "proxy")
BEFORE: Holders = {(GPU, "card_0"): TRAIN, (GPU, "card_1"): SERVE}
CARDS = [f"card_{number}" for number in range(4)]


def pods_of(*holders: Holder) -> frozenset[tuple[str, str]]:
    return frozenset((each.namespace, each.pod) for each in holders)


RUNNING = pods_of(TRAIN, SERVE)


def view(at: float, holders: Holders, pods: frozenset[tuple[str, str]] = RUNNING) -> KubeletView:
    return KubeletView(at, holders, None, pods)


def registered(kubelet: str = "a", at: float = 0.0) -> HolderMemory:
    memory = HolderMemory()
    memory.registering(GPU, kubelet, at)
    return memory


def known() -> HolderMemory:
    """Kubelet `a` has reported `BEFORE`."""
    memory = registered()
    memory.answered(view(1.0, BEFORE), "a")
    return memory


def forgotten(holders: Holders) -> set[str]:
    return {id_ for (_, id_), holder in holders.items() if holder.forgotten}


def in_doubt(memory: HolderMemory, now: float) -> set[str]:
    return {id_ for id_ in CARDS if memory.doubt(GPU, id_, now)}


def test_the_first_kubelet_is_believed() -> None:
    assert not known().is_settling


@pytest.mark.parametrize("pods", [RUNNING, pods_of(SERVE)], ids=["ended", "gone"])
def test_a_kubelet_that_kept_its_checkpoint_has_forgotten_nothing(
    pods: frozenset[tuple[str, str]],
) -> None:
    memory, now = known(), {(GPU, "card_1"): SERVE}
    assert memory.answered(view(2.0, now, pods), "b") == now
    assert not memory.is_settling


def test_a_kubelet_that_shows_no_known_device_has_forgotten_those_of_running_pods() -> None:
    memory = known()
    found = memory.answered(view(2.0, {}, pods_of(TRAIN)), "b")
    assert forgotten(found) == {"card_0"}
    assert found[GPU, "card_1"] == SERVE, "it may not be listed yet"
    assert in_doubt(memory, 2.0) == {"card_0", "card_1"}
    assert forgotten(memory.answered(view(2.1, {}), "b")) == {"card_0", "card_1"}


def test_a_card_that_another_pod_was_given_meanwhile_is_no_record_that_was_kept() -> None:
    now = {(GPU, "card_0"): Holder("default", "new", "main")}
    found = known().answered(view(2.0, now, RUNNING | pods_of(*now.values())), "b")
    assert found[GPU, "card_0"].pod == "new"
    assert forgotten(found) == {"card_1"}


def test_a_card_that_the_kubelet_shows_is_not_in_doubt() -> None:
    memory = known()
    memory.answered(view(2.0, {(GPU, "card_0"): Holder("default", "new", "main")}), "b")
    assert in_doubt(memory, 2.0) == {"card_1"}


def test_what_the_new_kubelet_allocated_is_no_record_that_was_kept() -> None:
    memory = known()
    memory.registering(GPU, "b", 2.0)
    memory.answered(view(2.1, {}), "b")
    memory.allocated(GPU, ["card_2"], 2.2)
    now = {(GPU, "card_2"): Holder("default", "new", "main")}
    for at in (2.3, 2.4, 40.0, 50.0):
        assert forgotten(memory.answered(view(at, now), "b")) == {"card_0", "card_1"}


def test_what_was_forgotten_once_stays_so_when_the_next_kubelet_keeps_its_record() -> None:
    memory = known()
    memory.answered(view(2.0, {(GPU, "card_2"): SERVE}, RUNNING), "b")
    memory.answered(view(3.0, {(GPU, "card_2"): SERVE}, frozenset()), "c")
    found = memory.answered(view(3.1, {(GPU, "card_2"): SERVE}), "c")
    assert forgotten(found) == {"card_0"}, "serve was started again, and got another card"


def test_a_pod_that_completed_while_its_kubelet_was_away_is_not_forgotten() -> None:
    memory = known()
    assert forgotten(memory.answered(view(2.0, {}, pods_of(TRAIN)), "b")) == {"card_0"}
    assert memory.answered(view(2.1, {(GPU, "card_1"): SERVE}), "b") == {(GPU, "card_1"): SERVE}


def test_a_container_that_was_started_again_releases_its_former_card_and_its_neighbour_none() -> (
    None
):
    side = Holder("default", "train", "side")
    memory = registered()
    memory.answered(view(1.0, {(GPU, "card_0"): TRAIN, (GPU, "card_1"): side}), "a")
    found = memory.answered(view(2.0, {(GPU, "card_2"): TRAIN}), "b")
    assert forgotten(found) == {"card_1"}


def test_a_pod_that_is_not_listed_for_long_is_gone() -> None:
    memory = known()
    others = frozenset({PROXY})
    assert memory.answered(view(2.0, {}, others), "b") == BEFORE
    assert memory.answered(view(2.0 + LISTING, {}, others), "b") == BEFORE
    assert memory.answered(view(2.1 + LISTING, {}, others), "b") == {}
    assert not in_doubt(memory, 3.0 + LISTING)


def test_a_card_is_in_doubt_until_the_kubelet_that_the_resource_is_registered_with_was_asked() -> (
    None
):
    memory = known()
    assert not in_doubt(memory, 2.0)
    memory.registering(GPU, "b", 2.0)
    assert in_doubt(memory, 2.0) == {"card_0", "card_1"}
    memory.answered(view(2.1, BEFORE), "b")
    assert not in_doubt(memory, 2.2)


def test_a_kubelet_that_does_not_answer_leaves_no_card_in_doubt_for_ever() -> None:
    memory = known()
    memory.registering(GPU, "b", 2.0)
    assert in_doubt(memory, 2.0 + FORGET_AFTER)
    assert not in_doubt(memory, 2.1 + FORGET_AFTER)


def lost_at_once() -> HolderMemory:
    """Kubelet `a` allocated `card_2` and ended; `b` has neither answered nor been registered with."""
    memory = registered()
    memory.answered(view(1.0, {}, frozenset({PROXY})), "a")
    memory.allocated(GPU, ["card_2"], 5.0)
    return memory


@pytest.mark.parametrize("first", ["answer", "registration"])
def test_a_card_allocated_right_before_the_kubelet_lost_its_record_is_held_by_a_new_pod(
    first: str,
) -> None:
    memory = lost_at_once()
    if first == "registration":
        memory.registering(GPU, "b", 8.0)
        assert in_doubt(memory, 8.0) == {"card_2"}
    memory.answered(view(8.1, {}, frozenset()), "b")
    if first == "answer":
        memory.registering(GPU, "b", 8.2)
    assert in_doubt(memory, 8.2) == {"card_2"}
    assert memory.answered(view(9.0, {}, RUNNING | {PROXY}), "b") == {}
    assert in_doubt(memory, 9.0) == {"card_2"}
    later = 9.1 + BATCH
    found = memory.answered(view(later, {}, RUNNING | {PROXY}), "b")
    assert found == {(GPU, "card_2"): Holder("default", "train", forgotten=True, perhaps=True)}
    late = frozenset({PROXY, ("default", "late")})
    found = memory.answered(view(later + 40, {}, late | {("team", "serve")}), "b")
    assert found[GPU, "card_2"].pod == "serve"
    assert in_doubt(memory, later + 40) == {"card_2"}
    assert memory.answered(view(later + 50, {}, late), "b") == {}
    assert not in_doubt(memory, later + 50)


def test_a_card_that_no_new_pod_can_hold_is_free_again() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    memory.answered(view(8.1, {}, frozenset({PROXY})), "b")
    assert in_doubt(memory, 8.2) == {"card_2"}
    assert memory.answered(view(8.2 + BATCH, {}, frozenset({PROXY})), "b") == {}
    assert not in_doubt(memory, 8.3 + BATCH)


def test_an_allocation_that_the_next_kubelet_shows_was_recorded() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    now = {(GPU, "card_2"): TRAIN}
    assert memory.answered(view(8.1, now), "b") == now
    assert not in_doubt(memory, 8.2)


def test_a_kubelet_that_is_registered_with_again_has_recorded_what_it_allocated() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "the same in a new directory", 5.5)
    assert in_doubt(memory, 5.6) == {"card_2"}
    memory.answered(view(5.6, {}, frozenset({PROXY})), "a")
    assert not in_doubt(memory, 5.7)
    assert memory.answered(view(6.0, {(GPU, "card_2"): TRAIN}), "a") == {(GPU, "card_2"): TRAIN}


def test_an_allocation_that_came_to_nothing_is_not_held() -> None:
    memory = lost_at_once()
    memory.answered(view(7.5, {}, frozenset({PROXY})), "a")
    memory.registering(GPU, "b", 8.0)
    assert not in_doubt(memory, 8.0)


def test_a_registration_with_the_same_kubelet_puts_no_card_in_doubt() -> None:
    memory = known()
    memory.registering(GPU, "a", 2.0)
    assert not in_doubt(memory, 2.0)


def test_a_card_stays_in_doubt_for_as_long_as_the_pod_is_listed_that_the_kubelet_forgot() -> None:
    memory = known()
    for at in range(2, 200, 10):
        memory.answered(view(float(at), {}), "b")
        assert in_doubt(memory, at) == {"card_0", "card_1"}
    assert memory.answered(view(200.0, {}, frozenset({PROXY})), "b") == {}


def test_a_pod_that_leaves_the_list_releases_its_card_at_once() -> None:
    memory = known()
    memory.answered(view(2.0, {}), "b")
    assert list(memory.answered(view(2.5, {}, pods_of(SERVE)), "b")) == [(GPU, "card_1")]


def test_a_kubelet_that_never_listed_a_pod_has_forgotten_none() -> None:
    memory, now = known(), {(GPU, "card_1"): SERVE}
    memory.answered(view(2.0, {}, frozenset()), "b")
    assert memory.answered(view(3.0, now), "c") == now


def test_a_pod_that_ends_long_after_the_kubelets_restart_releases_its_card() -> None:
    memory, late = known(), Holder("default", "late", "main")
    memory.answered(view(2.0, {}), "b")
    memory.answered(view(2.1 + LISTING, {}), "b")
    running = RUNNING | pods_of(late)
    memory.answered(view(50.0, {(GPU, "card_2"): late}, running), "b")
    assert forgotten(memory.answered(view(60.0, {}, running), "b")) == {"card_0", "card_1"}
    assert in_doubt(memory, 60.0) == {"card_0", "card_1"}


def test_a_kubelet_is_asked_often_only_until_it_is_settled_who_holds_what() -> None:
    memory = known()
    memory.answered(view(2.0, {}), "b")
    assert (memory.is_settling, memory.is_listing) == (True, True)
    memory.answered(view(2.1 + BATCH, {}), "b")
    assert (memory.is_settling, memory.is_listing) == (True, False)
    memory.answered(view(2.1 + LISTING, {}), "b")
    assert (memory.is_settling, memory.is_listing) == (False, False)


def test_a_restarted_kubelet_without_a_card_in_use_settles_nothing() -> None:
    memory = registered()
    memory.answered(view(1.0, {}), "a")
    memory.answered(view(2.0, {}), "b")
    assert not memory.is_settling


def test_a_card_that_an_ended_kubelet_allocated_is_to_be_settled() -> None:
    memory = lost_at_once()
    memory.answered(view(8.0, {}, frozenset({PROXY})), "b")
    assert memory.is_settling


def test_a_kubelet_that_shows_what_the_last_one_allocated_at_its_end_has_kept_its_record() -> None:
    memory, now = known(), {(GPU, "card_2"): Holder("default", "new", "main")}
    memory.allocated(GPU, ["card_2"], 5.0)
    assert memory.answered(view(8.0, now, RUNNING | pods_of(*now.values())), "b") == now
    assert not in_doubt(memory, 8.0)


def test_what_a_kubelet_allocated_before_its_first_answer_is_no_record_that_was_kept() -> None:
    memory, now = known(), {(GPU, "card_2"): Holder("default", "new", "main")}
    memory.registering(GPU, "b", 2.1)
    memory.answered(view(2.0, BEFORE), "a")  # asked before, and late
    memory.allocated(GPU, ["card_2"], 2.5)
    found = memory.answered(view(3.0, now, RUNNING | pods_of(*now.values())), "b")
    assert forgotten(found) == {"card_0", "card_1"}
    assert in_doubt(memory, 3.0) == {"card_0", "card_1"}


def test_a_kubelet_that_kept_its_record_settles_what_the_last_one_allocated() -> None:
    memory = known()
    memory.allocated(GPU, ["card_2"], 5.0)
    memory.registering(GPU, "b", 8.0)
    assert memory.answered(view(8.1, BEFORE), "b") == BEFORE
    assert not in_doubt(memory, 8.1)


def test_a_card_that_was_released_before_the_restart_is_not_in_doubt() -> None:
    memory = lost_at_once()
    memory.answered(view(5.1, {(GPU, "card_2"): TRAIN}), "a")
    memory.answered(view(5.2, {}), "a")
    memory.registering(GPU, "b", 5.5)
    assert not in_doubt(memory, 5.5)


def test_an_answer_that_comes_too_soon_after_an_allocation_to_show_it_settles_nothing() -> None:
    memory = lost_at_once()
    memory.answered(view(4.9 + RECORDED, {}), "a")
    memory.registering(GPU, "b", 8.0)
    assert in_doubt(memory, 8.0) == {"card_2"}


def test_an_answer_from_before_the_registration_settles_nothing() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 5.5)
    memory.answered(view(5.4, {}), "a")
    assert in_doubt(memory, 5.5) == {"card_2"}


def test_a_card_is_in_doubt_again_when_the_kubelet_ends_right_after_a_second_registration() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "the same in a new directory", 5.5)
    memory.answered(view(5.6, {}), "a")
    assert not in_doubt(memory, 5.6)
    memory.registering(GPU, "b", 6.0)
    assert in_doubt(memory, 6.0) == {"card_2"}


PODS = {"admitted", "new", "old", "older"}


def of_default(pods: Iterable[str]) -> frozenset[tuple[str, str]]:
    return frozenset(("default", pod) for pod in pods)


def suspects(answers: Sequence[tuple[str, float, str]]) -> set[str]:
    """Which pods may hold a card that kubelet `a` allocates 5 s after its registration, right before its end.

    `answers` are those until then: the kubelet, the time, and the pods that it lists.
    """
    found = set()
    for pod in PODS:
        memory = registered()
        for kubelet, at, names in answers:
            memory.answered(view(at, {}, of_default(names.split())), kubelet)
        memory.allocated(GPU, ["card_2"], 5.0)
        memory.answered(view(10.0, {}, of_default(PODS)), "b")
        if memory.answered(view(10.1 + BATCH, {}, of_default([pod])), "b"):
            found.add(pod)
    return found


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("a", 4.5, "old")], PODS),
        ([("a", 1.0, "older"), ("a", 2.0, "old older")], {"admitted", "new"}),
        ([("a", 1.0, "old older"), ("a", 4.5, "admitted old older")], {"admitted", "new"}),
        ([("the first", 0.0, "old older"), ("a", 1.0, "")], PODS),
    ],
    ids=["asked a moment ago", "all old", "one being admitted", "no pod listed yet"],
)
def test_a_pod_that_was_listed_a_second_before_an_allocation_does_not_hold_the_card(
    answers: Sequence[tuple[str, float, str]], expected: set[str]
) -> None:
    assert suspects(answers) == expected


def test_the_memory_of_a_thousand_answers_is_that_of_a_few() -> None:
    memory, sizes = known(), []
    for number in range(2, 1000):
        memory.answered(view(float(number), BEFORE), "a")
        memory.allocated(GPU, ["card_2"], number + 0.5)
        sizes.append(len(pickle.dumps(memory)))
    assert max(sizes) <= max(sizes[:10])
