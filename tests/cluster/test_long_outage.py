"""The API server is away for a minute while pods hold cards through DRA.

After a minute the scheduler and the kubelet wait up to 60 s before they ask the API server again (client-go
doubles its waits up to 30 s, and multiplies each by up to two): new pods are late, whatever the driver does.
"""

import signal
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster import figures
from tests.cluster.api import Object
from tests.cluster.dra import DraNode, claim_files
from tests.cluster.node import Node
from tests.cluster.pods import container, start_pod
from tests.cluster.processes import poll

AWAY: Final = 60.0
"""Seconds."""
FAULT_AT: Final = 20.0
RESTART_AT: Final = 30.0
STORED_WITHIN: Final = 20.0
"""Seconds from the first answer: a driver that waits longest asks after 15."""
NEW_POD_WITHIN: Final = 180.0
"""Seconds; 51 to 82 were seen: the scheduler and the kubelet each wait up to 60, after a failed attempt again."""
WHOLE: Final = {"card_0", "card_1", "card_8"}


def container_of(dra: DraNode, pod: str) -> Object:
    """The status of a pod's only container."""
    [status] = dra.api.pod(pod)["status"]["containerStatuses"]
    return dict(status)


def running_containers(dra: DraNode) -> set[str]:
    """The ids of containers, sandboxes among them, that containerd runs: it needs no API server."""
    lines = dra.node.containerd.ctr("tasks", "list").splitlines()
    return {line.split()[0] for line in lines if line.endswith("RUNNING")}


@pytest.fixture
def node_after_outage(node: Node) -> Iterator[None]:
    """The tests after this one find no part of the node that still waits."""
    yield
    node.restart_clients()


@pytest.mark.usefixtures("node_after_outage")
@pytest.mark.time_limit(360.0)
def test_a_minute_without_the_api_server_costs_no_claim_hides_no_fault_and_delays_new_pods_only(
    dra: DraNode,
) -> None:
    held = dra.hold_one("stays")
    restarted = dra.hold_one("restarts", restartPolicy="Always")
    files = claim_files()
    before = container_of(dra, "stays")
    ids = {
        pod: container_of(dra, pod)["containerID"].removeprefix("containerd://")
        for pod in ("stays", "restarts")
    }
    dra.node.processes.end("kube-apiserver", signal.SIGKILL)
    began = time.monotonic()

    def wait_until(seconds: float) -> None:
        while time.monotonic() < began + seconds:
            assert claim_files() == files
            assert ids["stays"] in running_containers(dra)
            time.sleep(1.0)  # the outage has to last

    try:
        wait_until(FAULT_AT)
        dra.host.pull_node(held)
        wait_until(RESTART_AT)
        count = len(running_containers(dra))
        dra.node.containerd.ctr("tasks", "kill", "--signal", "SIGKILL", ids["restarts"])
        poll(
            lambda: ids["restarts"] not in (now := running_containers(dra)) and len(now) == count,
            "the container's restart without an API server", 20.0, lambda: running_containers(dra),
        )  # fmt: skip
        wait_until(AWAY)
    finally:
        dra.node.start_api_server()
        dra.node.wait_for_api_server()
    back = time.monotonic()
    start_pod(dra.api, "new", container(gpu=1), nodeName=None)
    poll(
        lambda: "device-node" in dra.taints(held),
        f"the taint of {held}", STORED_WITHIN, lambda: dra.daemons[-1].lines[-10:],
    )  # fmt: skip
    figures.note(
        "ms from the API server's return after a minute to the taint",
        1e3 * (time.monotonic() - back),
    )
    dra.host.put_node_back(held)
    dra.wait_for_taints(held)
    dra.api.wait_for_phase("new", "Running", timeout=NEW_POD_WITHIN)
    figures.note(
        "ms from the API server's return after a minute to a new pod",
        1e3 * (time.monotonic() - back),
    )
    assert dra.inside("new").cards in WHOLE - {held, restarted}
    after = container_of(dra, "stays")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    again = container_of(dra, "restarts")
    assert again["restartCount"] == 1
    assert dra.inside("restarts").cards == restarted
    assert set(files) < set(claim_files())
