"""Pods on the real node under HAMi: HAMi's record, the kubelet and the containers name the same cards."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from biren_plugin.core.inventory.unreported_allocations import RECORDED
from tests.cluster.api import PODS, ApiError
from tests.cluster.hami import ENVIRONMENT, ClusterHami
from tests.cluster.host import NodeHost, daemon_on
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE, container, look_inside
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess
from tests.manifests.tools import find_tool
from tests.support.hami_scheduler import PHASE

CARDS: Final = {f"card_{number}" for number in range(8)}


@pytest.fixture(scope="module")
def hami_in_cluster(node: Node) -> Iterator[ClusterHami]:
    find_tool("kubectl")  # which renders the manifests
    hami = ClusterHami(node)
    hami.start()
    yield hami
    hami.end()


@pytest.fixture
def hami(hami_in_cluster: ClusterHami, node: Node) -> Iterator[ClusterHami]:
    yield hami_in_cluster
    node.api.delete_pods()


@pytest.fixture(scope="module")
def hami_host(hami_in_cluster: ClusterHami, state: Path) -> Iterator[NodeHost]:
    """Eight whole cards for all tests: HAMi reads the list of a new host after up to 15 s."""
    host = NodeHost(state / "hami-host")
    host.add_gpus(dict.fromkeys(range(8), 1))
    yield host
    host.close()
    shutil.rmtree(host.root)


@pytest.fixture(scope="module")
def kept_daemon(hami_host: NodeHost) -> Iterator[DaemonProcess]:
    """One daemon for all tests, not started."""
    daemon = daemon_on(hami_host, environment=ENVIRONMENT)
    yield daemon
    if daemon.running:
        daemon.end()


@pytest.fixture
def daemon(hami: ClusterHami, node: Node, kept_daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """The daemon, whose list HAMi knows; its log begins with the test."""
    kept_daemon.lines.clear()
    if not kept_daemon.running:
        kept_daemon.start()
    node.view.wait_for(CARDS)
    hami.wait_for_list(healthy=8)
    yield kept_daemon
    kept_daemon.assert_no_bug()


def assert_agreed(node: Node, hami: ClusterHami, name: str, *containers: str) -> None:
    """The record, the kubelet and each running container name the same cards."""
    for entry, each in zip(hami.record(name), containers, strict=True):
        held = node.view.held(WHOLE).get(f"{name}/{each}", [])
        assert set(held) == set(entry), each
        cards = look_inside(node.api, name, each).cards
        assert set(filter(None, cards.split(","))) == set(entry)


def test_pods_with_1_2_and_4_cards_run_with_the_cards_that_hami_chose(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    for name, number in (("one", 1), ("two", 2), ("four", 4)):
        hami.create(name, container(gpu=number))
        node.api.wait_for_phase(name, "Running")
        assert_agreed(node, hami, name, "main")
        hami.wait_for_release()
        assert hami.annotation(PHASE, name) == "success"
    node.api.delete_pods()
    hami.create("parts", container("a", gpu=1), container("b"), container("c", gpu=2))
    node.api.wait_for_phase("parts", "Running")
    assert_agreed(node, hami, "parts", "a", "b", "c")
    hami.wait_for_release()
    assert not daemon.matching("hami_unmatched|is not in HAMi's books")


def test_pods_that_are_created_at_once_are_bound_one_by_one_and_all_run(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    sizes = {"one": 1, "two": 2, "three": 1, "four": 4}
    for name, number in sizes.items():
        hami.create(name, container(gpu=number))
    for name in sizes:
        node.api.wait_for_phase(name, "Running", timeout=60.0)
        assert_agreed(node, hami, name, "main")
    hami.wait_for_release()
    assert not daemon.matching("refused an allocation|without HAMi's record")


def test_a_pod_whose_cards_differ_from_the_promise_is_refused_and_leaves_no_lock(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    first = container("first", stays=False, gpu=8)
    hami.create("steps", container(gpu=1), initContainers=[first])
    pod = node.api.wait_for_phase("steps", "Running", "Failed")
    hami.wait_for_release()
    if pod["status"]["phase"] == "Failed":  # the kubelet may keep any of the eight cards
        assert "HAMi promised card_" in pod["status"]["message"]
        assert hami.annotation(PHASE, "steps") == "failed"
        hami.create("next", container(gpu=1))
        node.api.wait_for_phase("next", "Running")
        assert_agreed(node, hami, "next", "main")
        hami.wait_for_release()
    assert not daemon.matching("without HAMi's record")


def test_a_topology_manager_does_not_choose_against_hami(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    # What was allocated so shortly before a restart counts as held, of a pod that was refused too.
    time.sleep(RECORDED)  # the daemon's clock cannot be moved from here
    policy = {"topologyManagerPolicy": "restricted"}
    node.restart_kubelet(**policy)
    try:
        node.view.wait_for(CARDS)
        hami.create("four", container(gpu=4))
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
    hami.create("late", container(gpu=1))
    node.api.wait_for_phase("late", "Failed")
    assert hami.lock is not None, "no daemon ran that could release it"
    daemon.start()
    hami.wait_for_release()
    assert hami.annotation(PHASE, "late") == "failed"
    node.view.wait_for(CARDS)
    hami.wait_for_list(healthy=8)
    hami.create("again", container(gpu=1))
    node.api.wait_for_phase("again", "Running")
    assert_agreed(node, hami, "again", "main")
    hami.wait_for_release()


def test_after_a_scheduler_restart_no_card_is_allocated_twice_and_a_faulty_one_to_no_pod(
    node: Node, hami: ClusterHami, hami_host: NodeHost, daemon: DaemonProcess
) -> None:
    for name, number in (("four", 4), ("two", 2)):
        hami.create(name, container(gpu=number))
        node.api.wait_for_phase(name, "Running")
    held = {card for name in ("four", "two") for entry in hami.record(name) for card in entry}
    faulty, good = sorted(CARDS - held)
    hami.scheduler.restart()
    hami_host.pull_node(faulty)
    hami.wait_for_list(healthy=7)
    hami.create("one", container(gpu=1))
    hami.create("next", container(gpu=1))
    node.api.wait_for_phase("one", "Running", timeout=60.0)
    assert hami.record("one") == [[good]]
    for name in ("four", "two", "one"):
        assert_agreed(node, hami, name, "main")
    assert node.api.pod("next")["status"]["phase"] == "Pending"
    hami_host.put_node_back(faulty)
    hami.wait_for_list(healthy=8)
    node.api.wait_for_phase("next", "Running", timeout=60.0)
    assert hami.record("next") == [[faulty]]
    assert_agreed(node, hami, "next", "main")


def test_a_pod_that_is_deleted_before_its_allocation_leaves_no_lock(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    daemon.send(signal.SIGSTOP)
    hami.create("gone", container(gpu=1))
    poll(lambda: hami.lock, "the lock")
    poll(lambda: node.api.pod("gone")["spec"].get("nodeName"), "the binding")
    node.api.delete(f"{PODS}/gone")
    daemon.send(signal.SIGCONT)
    hami.wait_for_release()
    hami.create("next", container(gpu=8))
    node.api.wait_for_phase("next", "Running", timeout=60.0)
    assert_agreed(node, hami, "next", "main")


def test_a_privileged_pod_is_refused_by_the_webhook(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    if not hami.scheduler.is_real:
        pytest.skip("the stand-in has no webhook")
    privileged = container(gpu=1) | {"securityContext": {"privileged": True}}
    with pytest.raises(ApiError, match="container main is privileged"):
        hami.create("privileged", privileged)


def test_a_daemon_that_stops_leaves_no_lock(
    node: Node, hami: ClusterHami, daemon: DaemonProcess
) -> None:
    node.stop_kubelet()
    try:
        hami.create("waiting", container(gpu=1))
        poll(lambda: hami.lock, "the lock")
        daemon.end()
        assert hami.lock is None
    finally:
        node.start_kubelet()
