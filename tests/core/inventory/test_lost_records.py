"""No card is in two containers, in whichever order kubelets lose their records, list pods and are asked."""

import pytest

from biren_plugin.core.inventory.holder_memory import HolderMemory
from biren_plugin.core.inventory.kubelet_start import BATCH, LISTING
from biren_plugin.core.observed import Holder
from tests.core.inventory.test_holder_memory import (
    BEFORE,
    PROXY,
    RUNNING,
    SERVE,
    TRAIN,
    forgotten,
    in_doubt,
    known,
    lost_at_once,
    pods_of,
    registered,
    view,
)
from tests.support.cards import GPU
from tests.support.kubelet_lives import CARDS, Kubelet, live


def held(memory: HolderMemory, now: float, kubelet: str, *listed: str) -> set[str]:
    """Take an answer without devices and with these pods; the cards that nobody else gets after it."""
    found = memory.answered(view(now, {}, frozenset(("default", pod) for pod in listed)), kubelet)
    assert forgotten(found) == in_doubt(memory, now)
    return forgotten(found)


def test_a_pod_that_was_listed_while_no_question_was_answered_may_hold_the_card() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    memory.answered(view(8.1, {}, frozenset({PROXY})), "b")
    later = 8.2 + BATCH
    assert held(memory, later, "b", "old", "train") == {"card_2"}
    assert held(memory, later + 40, "b", "train") == {"card_2"}
    assert not held(memory, later + 50, "b", "old")


def test_a_kubelet_that_ends_before_it_lists_all_pods_does_not_settle_who_holds_a_card() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    memory.answered(view(8.1, {}, frozenset({("default", "other")})), "b")
    memory.registering(GPU, "c", 8.4)
    memory.answered(view(8.5, {}, frozenset({("default", "other")})), "c")
    assert held(memory, 8.6 + BATCH, "c", "other", "train") == {"card_2"}
    assert held(memory, 20.0, "c", "train") == {"card_2"}
    assert not held(memory, 21.0, "c")


def test_a_record_that_began_after_a_loss_proves_nothing_about_the_time_before() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    memory.answered(view(8.1, {}, frozenset()), "b")
    memory.allocated(GPU, ["card_3"], 8.2)
    memory.registering(GPU, "c", 8.4)
    shown = {(GPU, "card_3"): SERVE}
    memory.answered(view(8.5, shown, pods_of(SERVE)), "c")
    found = memory.answered(view(8.6 + BATCH, shown, RUNNING), "c")
    assert forgotten(found) == {"card_2"}


def test_a_kubelet_that_kept_its_record_and_ends_before_it_lists_a_pod_has_not_released_its_card() -> (
    None
):
    memory = known()
    memory.registering(GPU, "b", 2.0)
    now = {(GPU, "card_1"): SERVE}
    assert memory.answered(view(2.1, now, pods_of(SERVE)), "b") == now
    assert not in_doubt(memory, 2.2), "a pod that has gone meanwhile keeps no card from others"
    memory.registering(GPU, "c", 2.3)
    assert in_doubt(memory, 2.4) == {"card_0", "card_1"}
    assert memory.answered(view(2.4, {}, frozenset({PROXY})), "c") == BEFORE, "none is lost yet"
    assert forgotten(memory.answered(view(2.5, {}), "c")) == {"card_0", "card_1"}


def test_a_card_that_a_pod_of_the_same_name_got_later_is_no_record_that_was_kept() -> None:
    memory = known()
    memory.registering(GPU, "b", 2.0)
    memory.answered(view(2.1, {}), "b")
    memory.answered(view(3.0, {}, pods_of(SERVE)), "b")
    memory.allocated(GPU, ["card_0"], 3.5)
    for at in (3.7, 3.8):
        found = memory.answered(view(at, {(GPU, "card_0"): TRAIN}), "b")
        assert forgotten(found) == {"card_1"}


def test_a_card_that_the_new_kubelet_allocated_to_a_pod_of_the_same_name_is_no_record_that_was_kept() -> (
    None
):
    memory = known()
    memory.registering(GPU, "b", 2.0)
    memory.answered(view(2.1, {}, frozenset()), "b")
    memory.allocated(GPU, ["card_0"], 2.2)  # as HAMi has promised
    found = memory.answered(view(2.3, {(GPU, "card_0"): TRAIN}), "b")
    assert forgotten(found) == {"card_1"}


def test_a_card_stays_healthy_while_the_pod_that_has_it_may_be_admitted_before_it_is_listed() -> (
    None
):
    memory = known()
    memory.allocated(GPU, ["card_2"], 5.0)
    memory.registering(GPU, "b", 6.0)
    new = frozenset({("default", "new")})
    assert (GPU, "card_2") not in memory.answered(view(6.1, {}, new), "b")
    assert "card_2" in in_doubt(memory, 6.1), "no other pod gets it meanwhile"
    assert memory.answered(view(6.2, BEFORE, RUNNING | new), "b") == BEFORE
    assert not in_doubt(memory, 6.2)


def test_what_a_kubelet_allocated_long_after_a_loss_is_evidence_for_the_next_kubelet() -> None:
    memory, new = known(), Holder("default", "new", "main")
    memory.answered(view(2.0, {}), "b")
    memory.answered(view(2.1 + LISTING, {}), "b")
    memory.allocated(GPU, ["card_2", "card_3"], 50.0)
    memory.registering(GPU, "c", 51.0)
    found = memory.answered(view(51.1, {(GPU, "card_2"): new}, RUNNING | pods_of(new)), "c")
    assert forgotten(found) == {"card_0", "card_1"}
    assert in_doubt(memory, 51.1) == {"card_0", "card_1"}


def test_a_lost_card_that_another_pod_is_shown_with_is_that_pods() -> None:
    memory, new = known(), Holder("default", "new", "main")
    memory.answered(view(2.0, {}), "b")
    memory.answered(view(2.1 + LISTING, {}), "b")
    memory.answered(view(50.0, {(GPU, "card_0"): new}, RUNNING | pods_of(new)), "b")
    assert forgotten(memory.answered(view(51.0, {}), "b")) == {"card_1"}


def test_an_allocation_is_not_in_doubt_long_after_a_second_registration_with_its_kubelet() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "the same in a new directory", 5.5)
    memory.answered(view(5.6, {}, frozenset({PROXY})), "a")
    memory.answered(view(7.5, {}, frozenset({PROXY})), "a")
    memory.registering(GPU, "b", 8.0)
    assert not in_doubt(memory, 8.0)


def test_a_pod_that_waited_under_an_earlier_kubelet_may_hold_the_card() -> None:
    memory = registered()
    memory.answered(view(1.0, {}, frozenset({("default", "waits")})), "a")
    memory.registering(GPU, "b", 3.0)
    memory.answered(view(3.1, {}, frozenset()), "b")
    memory.allocated(GPU, ["card_2"], 3.2)
    memory.registering(GPU, "c", 4.0)
    memory.answered(view(4.1, {}, frozenset({("default", "waits")})), "c")
    assert held(memory, 4.2 + BATCH, "c", "waits") == {"card_2"}


def test_a_pod_that_held_another_card_may_be_a_new_one_of_its_name_and_hold_this_one() -> None:
    memory = registered()
    memory.answered(view(1.0, {(GPU, "card_0"): TRAIN}), "a")
    memory.allocated(GPU, ["card_2"], 5.0)
    memory.registering(GPU, "b", 6.0)
    memory.answered(view(6.1, {}), "b")
    found = memory.answered(view(6.2 + BATCH, {}), "b")
    assert found[GPU, "card_2"].pod == "train"
    assert memory.answered(view(20.0, {}, pods_of(SERVE)), "b") == {}


@pytest.mark.parametrize("seed", range(150))
def test_in_no_order_of_losses_is_a_card_in_two_containers(seed: int) -> None:
    live(seed)


def test_nodes_that_lose_records_do_not_run_out_of_cards() -> None:
    """Once all pods are gone, and listed no more, every card is free."""
    for seed in range(20):
        kubelet = Kubelet(seed)
        for _ in range(40):
            kubelet.pass_time(3)
            kubelet.random.choice([kubelet.new_pod, kubelet.ask, kubelet.restart])()
        while kubelet.listed:
            kubelet.end_pod()
        for _ in range(3):
            kubelet.now += LISTING
            kubelet.ask()
        assert kubelet.healthy == set(CARDS)
        assert not in_doubt(kubelet.memory, kubelet.now)
