"""Devices that pods hold count, even if a kubelet that lost its checkpoint has no record of them."""

import pytest

from biren_plugin.core.inventory.held_cards import (
    forgotten_by,
    lists_again,
    unless_held_unnoticed,
    with_forgotten,
)
from biren_plugin.core.observed import Holder, KubeletView
from tests.support.cards import GPU, devices

TRAIN = Holder("default", "train", "main")
SERVE = Holder("team", "serve", "main")
BEFORE = {(GPU, "card_0"): TRAIN, (GPU, "card_1"): SERVE}
RUNNING = frozenset({("default", "train"), ("team", "serve")})


def test_a_kubelet_that_kept_its_checkpoint_has_forgotten_nothing() -> None:
    now = {(GPU, "card_1"): SERVE}
    assert with_forgotten(BEFORE, KubeletView(1.0, now, None, RUNNING)) == now


def test_a_kubelet_that_knows_no_device_has_forgotten_those_of_running_pods() -> None:
    found = with_forgotten(BEFORE, KubeletView(1.0, {}, None, frozenset({("default", "train")})))
    assert {key: pod.forgotten for key, pod in found.items()} == {(GPU, "card_0"): True}


def test_a_card_that_another_pod_was_given_meanwhile_is_no_record_that_was_kept() -> None:
    now = {(GPU, "card_0"): Holder("default", "new", "main")}
    found = with_forgotten(BEFORE, KubeletView(1.0, now, None, RUNNING))
    assert found == {**now, (GPU, "card_1"): Holder("team", "serve", "main", forgotten=True)}


@pytest.mark.parametrize(
    ("pods", "lists"),
    [(set(), False), ({("kube-system", "etcd")}, False), ({("team", "serve")}, True)],
)
def test_a_kubelet_lists_again_once_it_lists_a_pod_that_held_a_card(
    pods: set[tuple[str, str]], lists: bool
) -> None:
    assert lists_again(BEFORE, KubeletView(1.0, {}, None, frozenset(pods))) is lists
    assert lists_again({}, KubeletView(1.0, {}, None, frozenset(pods)))


def test_a_pod_that_holds_a_card_again_has_its_record_back() -> None:
    lost = with_forgotten(BEFORE, KubeletView(1.0, {}, None, RUNNING))
    now = {(GPU, "card_5"): TRAIN}
    still = forgotten_by(lost, KubeletView(2.0, now, None, RUNNING))
    assert list(still) == [(GPU, "card_1")]


def test_a_card_of_a_forgotten_pod_is_unhealthy_with_the_reason() -> None:
    card_0, card_1 = devices(GPU, 0, 1)
    lost = with_forgotten({(GPU, "card_0"): TRAIN}, KubeletView(1.0, {}, None, RUNNING))
    assert unless_held_unnoticed(card_1, lost) == card_1
    (reason,) = unless_held_unnoticed(card_0, lost).reasons
    assert reason.startswith("pod default/train still holds it")
