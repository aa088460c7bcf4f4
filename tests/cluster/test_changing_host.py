"""Splits, pulled nodes, silent functions and driver reloads, as the kubelet and pods observe them."""

import pytest

from biren_plugin.core.parse import vendor
from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import HALF, QUARTER, container, run_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess


def gpu_of(card: str) -> int:
    """The GPU of a whole card, on a host whose GPUs were never split."""
    return int(card.removeprefix(vendor.CARD_PREFIX))


def hold_one(node: Node) -> str:
    """Runs a pod with one card; the card's name."""
    return run_pod(node.api, "holder", container(gpu=1))["main"].cards


def health_in_status(node: Node, name: str) -> list[tuple[str, str]]:
    """The name of each device in the pod's status, and its health."""
    [status] = node.api.pod(name)["status"]["containerStatuses"]
    return [
        (device["resourceID"], device["health"])
        for each in status.get("allocatedResourcesStatus", [])
        for device in each.get("resources", [])
    ]


def test_a_new_split_is_offered_while_a_pod_holds_another_card(
    node: Node, host: NodeHost, eight_cards: set[str]
) -> None:
    held = hold_one(node)
    other = sorted(eight_cards - {held})[0]
    halves = set(host.split(gpu_of(other), 2))
    node.view.wait_for(halves, HALF)
    node.view.wait_for(eight_cards - {other})
    inside = run_pod(node.api, "halves", container(half=2))["main"]
    assert set(inside.cards.split(",")) == halves


def test_a_held_card_that_is_split_stays_with_its_pod_until_the_pod_is_gone(
    node: Node, host: NodeHost, eight_cards: set[str]
) -> None:
    held = hold_one(node)
    quarters = set(host.split(gpu_of(held), 4))
    node.view.wait_for(eight_cards - {held})
    node.view.wait_for(quarters - {held}, QUARTER)
    assert node.api.pod("holder")["status"]["phase"] == "Running"
    node.api.delete_pods()
    node.view.wait_for(quarters, QUARTER, timeout=40.0)


def test_a_split_while_the_daemon_is_down_is_offered_when_it_starts(
    node: Node, host: NodeHost, eight_cards: set[str], daemon: DaemonProcess
) -> None:
    daemon.end()
    halves = set(host.split(0, 2))
    daemon.start()
    node.view.wait_for(halves, HALF)
    node.view.wait_for(eight_cards - {"card_0"})
    run_pod(node.api, "half", container(half=1))


def break_card(host: NodeHost, kind: str, card: str) -> None:
    """Makes the card faulty."""
    match kind:
        case "pulled node":
            host.pull_node(card)
        case "silent function":
            host.silence(card)
        case "GPU off the bus":
            host.remove_gpu(gpu_of(card))


def repair_card(host: NodeHost, kind: str, card: str) -> None:
    """Makes the card as it was."""
    match kind:
        case "pulled node":
            host.put_node_back(card)
        case "silent function":
            host.unsilence(card)
        case "GPU off the bus":
            host.split(gpu_of(card), 1)


@pytest.mark.parametrize("kind", ["pulled node", "silent function", "GPU off the bus"])
def test_a_faulty_card_is_not_allocated_and_its_pods_status_says_so_until_it_recovers(
    node: Node, host: NodeHost, eight_cards: set[str], kind: str
) -> None:
    held = hold_one(node)
    break_card(host, kind, held)
    node.view.wait_for(eight_cards - {held})
    expected = [(held, "Unhealthy")]
    poll(lambda: health_in_status(node, "holder") == expected, f"the pod's status: {expected}")
    run_pod(node.api, "others", container(gpu=7))
    repair_card(host, kind, held)
    node.view.wait_for(eight_cards)


def test_a_reloaded_driver_brings_every_card_back(
    node: Node, host: NodeHost, eight_cards: set[str]
) -> None:
    for card in eight_cards:
        host.pull_node(card)
    host.unload_module()
    node.view.wait_for(set())
    host.load_module()
    for card in eight_cards:
        host.put_node_back(card)
    node.view.wait_for(eight_cards)
    run_pod(node.api, "after", container(gpu=8))
