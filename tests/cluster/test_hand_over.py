"""One daemon takes over from another: how long the kubelet counts no card, and which pods it costs."""

import re
import signal
from collections.abc import Callable

import pytest

from tests.cluster import figures
from tests.cluster.host import NodeHost
from tests.cluster.load import RATE, pod_load
from tests.cluster.node import Node
from tests.cluster.pods import container, run_pod
from tests.e2e.daemon import DaemonProcess

CARDS = {f"card_{number}" for number in range(16)}
UNREGISTERED = "no healthy devices present|has been stopped|rpc error"
"""The kubelet's words about a plugin that has gone, or that goes while it answers."""
HAND_OVERS = 3
ENDINGS = [signal.SIGTERM, signal.SIGKILL]
STANDS_BY = "standing by|stands by"


@pytest.fixture(params=[(), ("--cdi-feature",)], ids=["plain", "CDI"])
def successors(
    request: pytest.FixtureRequest,
    host: NodeHost,
    node: Node,
    new_daemon: Callable[..., DaemonProcess],
) -> Callable[[], DaemonProcess]:
    """Starts one more daemon on a node of sixteen cards; the first serves, the others stand by."""
    host.add_gpus(dict.fromkeys(range(16), 1))
    first = True

    def start() -> DaemonProcess:
        nonlocal first
        daemon = new_daemon(*request.param)
        daemon.start()
        if first:
            node.view.wait_for(CARDS)
        else:
            daemon.wait_for_line(STANDS_BY)
        first = False
        return daemon

    return start


def hand_over(node: Node, old: DaemonProcess, number: signal.Signals, figure: str) -> float:
    """Ends the daemon that serves; the seconds until the kubelet counts every card again."""
    with node.view.gaps(CARDS) as gaps:
        assert old.end(number) == (0 if number == signal.SIGTERM else -number)
        node.view.wait_for(CARDS)
    figures.note(f"ms without a card, {figure}, {number.name}", sum(gaps) * 1000)
    return sum(gaps)


@pytest.mark.parametrize("number", ENDINGS)
def test_a_hand_over_at_rest_costs_no_pod(
    node: Node,
    successors: Callable[[], DaemonProcess],
    number: signal.Signals,
    request: pytest.FixtureRequest,
) -> None:
    kind = request.node.callspec.id.split("-")[0]
    serving = successors()
    for turn in range(3):
        waiting = successors()
        hand_over(node, serving, number, f"{kind}, at rest")
        run_pod(node.api, f"after-{turn}", container(gpu=1))
        serving = waiting


@pytest.mark.parametrize("number", ENDINGS)
def test_hand_overs_under_load_cost_only_pods_that_were_admitted_in_the_gap(
    node: Node,
    successors: Callable[[], DaemonProcess],
    number: signal.Signals,
    request: pytest.FixtureRequest,
) -> None:
    kind = request.node.callspec.id.split("-")[0]
    serving, waiting = successors(), successors()
    without_card = 0.0
    with pod_load(node.api, "pod") as outcome:
        for _ in range(HAND_OVERS):
            without_card += hand_over(node, serving, number, f"{kind}, nine pods a second")
            serving, waiting = waiting, successors()
    lost = len(outcome.refused)
    figures.note(f"pods lost, {kind}, {number.name}, {HAND_OVERS} hand-overs under load", lost)
    assert outcome.ran
    for text in outcome.refused.values():
        assert re.search(UNREGISTERED, text), text
    assert lost <= HAND_OVERS + without_card * RATE, outcome.refused
