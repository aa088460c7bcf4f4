"""Cards of every split are in the containers that asked for them, and in no other container."""

from collections.abc import Callable

import pytest

from tests.cluster.host import CONTROL_MINOR, MAJOR, NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import HALF, QUARTER, WHOLE, Inside, container, run_pod, start_pod
from tests.e2e.daemon import DaemonProcess

OFFERED = {
    WHOLE: {"card_0", "card_1", "card_2", "card_3"},
    HALF: {"card_4", "card_5"},
    QUARTER: {"card_6", "card_7", "card_8", "card_9"},
}


@pytest.fixture(params=["plain", "CDI"], autouse=True)
def offered(
    request: pytest.FixtureRequest,
    host: NodeHost,
    node: Node,
    new_daemon: Callable[..., DaemonProcess],
) -> None:
    """Four whole GPUs, one in halves, one in quarters, all counted by the kubelet."""
    host.add_gpus({0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 4})
    new_daemon(*(["--cdi-feature"] if request.param == "CDI" else [])).start()
    for resource, ids in OFFERED.items():
        node.view.wait_for(ids, resource)


def check(node: Node, inside: Inside, holder: str, resource: str, count: int) -> set[str]:
    """Asserts that the container has the cards that the kubelet lists, the control node, and no other node."""
    ids = node.view.held(resource)[holder]
    assert len(ids) == count
    numbers = {f"biren/{each}": f"{MAJOR:x}:{int(each[5:]):x}" for each in ids}
    assert inside.nodes == numbers | {"biren-m": f"{MAJOR:x}:{CONTROL_MINOR:x}"}
    assert inside.opens == set(inside.nodes)
    assert sorted(inside.cards.split(",")) == ids
    return set(ids)


def test_a_container_gets_the_whole_cards_that_it_asks_for(node: Node) -> None:
    found = run_pod(node.api, "whole", container(gpu=2))
    check(node, found["main"], "whole/main", WHOLE, 2)


def test_two_containers_of_a_pod_get_halves_and_quarters_of_their_own(node: Node) -> None:
    halves = container("halves", half=2)
    quarters = container("quarters", quarter=3)
    found = run_pod(node.api, "parts", halves, quarters)
    check(node, found["halves"], "parts/halves", HALF, 2)
    check(node, found["quarters"], "parts/quarters", QUARTER, 3)


def test_an_init_containers_cards_serve_the_container_after_it(node: Node) -> None:
    first = container("first", stays=False, gpu=1)
    found = run_pod(node.api, "two-steps", container(gpu=3), initContainers=[first])
    ids = check(node, found["main"], "two-steps/main", WHOLE, 3)
    assert set(found["first"].cards.split(",")) <= ids


def test_a_container_that_asks_for_no_card_gets_none(node: Node) -> None:
    found = run_pod(node.api, "without", container())
    assert found["main"] == Inside({}, set(), "")


def test_a_pod_that_asks_for_more_than_is_free_waits_until_cards_are_free(node: Node) -> None:
    run_pod(node.api, "first", container(gpu=3))
    body = container(gpu=2)
    start_pod(node.api, "second", body, nodeName=None)
    assert node.api.pod("second")["status"]["phase"] == "Pending"
    node.api.delete("/api/v1/namespaces/default/pods/first")
    node.api.wait_for_phase("second", "Running")
