"""Pods on the real node under HAMi: its record, the kubelet and the containers name the same cards."""

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.hami import ENVIRONMENT, PROFILE, ClusterHami
from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE, container, look_inside, start_pod
from tests.e2e.daemon import DaemonProcess
from tests.manifests.tools import find_tool
from tests.support.hami_scheduler import PHASE


@pytest.fixture
def hami(node: Node) -> Iterator[ClusterHami]:
    find_tool("kubectl")  # which renders the manifests
    scheduler = ClusterHami(node)
    scheduler.deploy()
    yield scheduler
    node.api.delete_pods()
    scheduler.remove()


@pytest.fixture
def daemon(
    hami: ClusterHami, host: NodeHost, node: Node, new_daemon: Callable[..., DaemonProcess]
) -> DaemonProcess:
    """The daemon of eight whole cards, whose cards HAMi knows."""
    host.add_gpus(dict.fromkeys(range(8), 1))
    daemon = new_daemon()
    daemon.environment |= ENVIRONMENT
    daemon.start()
    node.view.wait_for({f"card_{number}" for number in range(8)})
    hami.wait_for_report()
    return daemon


def assert_agreed(node: Node, hami: ClusterHami, name: str, *containers: str) -> None:
    """The record, the kubelet and each running container name the same cards."""
    for entry, each in zip(hami.record[name], containers, strict=True):
        held = node.view.held(WHOLE).get(f"{name}/{each}", [])
        assert set(held) == set(entry), each
        cards = look_inside(node.api, name, each).cards
        assert set(filter(None, cards.split(","))) == set(entry)


def test_pods_with_1_2_and_4_cards_run_and_everybody_agrees(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    for name, number in (("one", 1), ("two", 2), ("four", 4)):
        hami.start(name, container(gpu=number))
        node.api.wait_for_phase(name, "Running")
        assert_agreed(node, hami, name, "main")
        hami.wait_for_release()
        assert hami.annotation(PHASE, name) == "success"
    node.api.delete_pods()
    hami.start("parts", container("a", gpu=1), container("b"), container("c", gpu=2))
    node.api.wait_for_phase("parts", "Running")
    assert_agreed(node, hami, "parts", "a", "b", "c")
    hami.wait_for_release()
    assert not daemon.matching("hami_unmatched|is not in HAMi's books")


def test_pods_that_come_at_once_follow_each_other_and_all_run(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    with hami.as_extender():
        sizes = {"one": 1, "two": 2, "three": 1, "four": 4}
        for name, number in sizes.items():
            start_pod(node.api, name, container(gpu=number), nodeName=None, schedulerName=PROFILE)
        for name in sizes:
            node.api.wait_for_phase(name, "Running", timeout=60.0)
            assert_agreed(node, hami, name, "main")
        hami.wait_for_release()
    assert not daemon.matching("refused an allocation|without HAMi's record")


def test_a_pod_whose_cards_differ_from_the_promise_is_refused_and_leaves_no_lock(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    first = container("first", stays=False, gpu=8)
    hami.start("steps", container(gpu=1), initContainers=[first])
    pod = node.api.wait_for_phase("steps", "Running", "Failed")
    hami.wait_for_release()
    if pod["status"]["phase"] == "Failed":  # the kubelet keeps any of the eight cards
        assert "HAMi promised card_" in pod["status"]["message"]
        assert hami.annotation(PHASE, "steps") == "failed"
        hami.start("next", container(gpu=1))
        node.api.wait_for_phase("next", "Running")
        assert_agreed(node, hami, "next", "main")
        hami.wait_for_release()
    assert not daemon.matching("without HAMi's record")


def test_a_topology_manager_does_not_choose_against_hami(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    policy = {"topologyManagerPolicy": "restricted"}
    node.restart_kubelet(**policy)
    try:
        node.view.wait_for({f"card_{number}" for number in range(8)})
        hami.start("four", container(gpu=4))
        node.api.wait_for_phase("four", "Running")
        assert_agreed(node, hami, "four", "main")
        hami.wait_for_release()
        assert not daemon.matching("refused an allocation")
    finally:
        node.restart_kubelet()


def test_a_daemon_that_is_killed_leaves_its_lock_to_the_next_one(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    daemon.kill()
    hami.start("late", container(gpu=1))
    node.api.wait_for_phase("late", "Failed")
    assert hami.lock is not None, "nobody was there to release it"
    daemon.start()
    hami.wait_for_release()
    assert hami.annotation(PHASE, "late") == "failed"
    node.view.wait_for({f"card_{number}" for number in range(8)})
    hami.wait_for_report()
    hami.start("again", container(gpu=1))
    node.api.wait_for_phase("again", "Running")
    assert_agreed(node, hami, "again", "main")
    hami.wait_for_release()
