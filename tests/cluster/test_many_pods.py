"""Topology policies of the kubelet, a burst of pods, and a rival plugin for the same resource."""

from collections.abc import Iterator

import pytest

from tests.cluster.api import PODS
from tests.cluster.host import NodeHost
from tests.cluster.node import KUBELET_ROOT, Node
from tests.cluster.pods import WHOLE, container, look_inside, refusal_of, run_pod, start_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.test_kubelet import StandIn

PLUGINS = KUBELET_ROOT / "device-plugins"
BURST = 60


@pytest.fixture
def policy(node: Node, eight_cards: set[str], request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the kubelet with that topology policy during the test."""
    node.restart_kubelet(topologyManagerPolicy=request.param)
    node.view.wait_for(eight_cards)
    yield request.param
    node.api.delete_pods()
    node.restart_kubelet()


@pytest.mark.parametrize("policy", ["restricted", "single-numa-node"], indirect=True)
def test_a_pods_cards_come_from_one_numa_node_or_the_pod_is_refused(
    node: Node, policy: str
) -> None:
    numa_nodes = (
        {"card_0", "card_1", "card_2", "card_3"},
        {"card_4", "card_5", "card_6", "card_7"},
    )
    cards = set(run_pod(node.api, "fits", container(gpu=3))["main"].cards.split(","))
    assert any(cards <= each for each in numa_nodes)
    start_pod(node.api, "does-not", container(gpu=5))
    refusal = poll(lambda: refusal_of(node.api, "does-not"), "the kubelet's refusal")
    assert refusal is not None
    assert refusal["reason"] == "TopologyAffinityError", policy


def test_sixty_pods_at_once_get_sixty_different_cards(
    node: Node, host: NodeHost, daemon: DaemonProcess
) -> None:
    host.add_gpus(dict.fromkeys(range(BURST), 1))
    daemon.start()
    cards = {f"card_{number}" for number in range(BURST)}
    node.view.wait_for(cards)
    node.view.wait_until_none_is_held()
    names = [f"burst-{number}" for number in range(BURST)]
    for name in names:
        start_pod(node.api, name, container(gpu=1), hostNetwork=True)

    def all_run() -> bool:
        pods = node.api.get(PODS)["items"]
        failed = [pod["status"] for pod in pods if pod["status"].get("phase") == "Failed"]
        assert not failed, daemon.lines[-10:]
        return all(pod["status"].get("phase") == "Running" for pod in pods)

    poll(all_run, "sixty pods", 90.0)
    assert {look_inside(node.api, name).cards for name in names} == cards
    held = node.view.held(WHOLE)
    assert sorted(card for each in held.values() for card in each) == sorted(cards)


def test_a_rival_plugin_that_leaves_costs_no_card(node: Node, eight_cards: set[str]) -> None:
    with StandIn(PLUGINS, "rival.sock", "card_0") as rival:
        rival.register()
        node.view.wait_for({"card_0"})
    (PLUGINS / "rival.sock").unlink(missing_ok=True)
    node.view.wait_for(eight_cards, timeout=40.0)
    inside = run_pod(node.api, "after", container(gpu=8))["main"]
    assert set(inside.cards.split(",")) == eight_cards
    assert {f"biren/{card}" for card in eight_cards} < inside.opens


def test_a_rival_plugin_that_registers_again_and_again_is_named(
    node: Node, eight_cards: set[str], daemon: DaemonProcess
) -> None:
    with StandIn(PLUGINS, "rival.sock", "card_0") as rival:
        for _ in range(3):
            rival.register()
        daemon.wait_for_line("rival.sock")
    (PLUGINS / "rival.sock").unlink(missing_ok=True)
    node.view.wait_for(eight_cards, timeout=40.0)
