"""One daemon takes over from another: for how long the kubelet counts no card, and which pods fail."""

import re
import signal
import time
from collections.abc import Callable

import pytest

from tests.cluster import figures
from tests.cluster.host import NodeHost
from tests.cluster.load import pod_load
from tests.cluster.node import Node
from tests.cluster.pods import container, run_pod
from tests.e2e.daemon import DaemonProcess

CARDS = {f"card_{number}" for number in range(16)}
UNREGISTERED = "no healthy devices present|has been stopped|rpc error"
"""The kubelet's messages about a plugin that has ended, or that ends while it answers."""
HAND_OVERS = 3
ENDINGS = [signal.SIGTERM, signal.SIGKILL]
STANDS_BY = "standing by|stands by"
TOOK_OVER = "taking over"
BETWEEN = 0.5
"""Seconds."""


@pytest.fixture(params=[(), ("--cdi-feature",)], ids=["plain", "CDI"])
def successors(
    request: pytest.FixtureRequest,
    host: NodeHost,
    node: Node,
    new_daemon: Callable[..., DaemonProcess],
) -> Callable[[], DaemonProcess]:
    """Starts another daemon on a node of sixteen cards; the first serves, the others stand by."""
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
    """Ends the serving daemon; the seconds until the kubelet counts every card again."""
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
def test_under_load_a_hand_over_costs_no_more_pods_than_a_daemon_without_a_successor(
    node: Node,
    successors: Callable[[], DaemonProcess],
    number: signal.Signals,
    request: pytest.FixtureRequest,
) -> None:
    # A kubelet counts no card between the end of one plugin's connection and the next plugin's list, and
    # refuses pods in between: that loss is the kubelet's own. The control is the same load on the same node,
    # with a daemon that starts only after the other has ended.
    kind = request.node.callspec.id.split("-")[0]
    daemons = [successors() for _ in range(HAND_OVERS + 1)]
    with pod_load(node.api, "handed-over") as handed_over:
        for _ in range(HAND_OVERS):
            hand_over(node, serving_of(daemons), number, f"{kind}, under load")
            time.sleep(BETWEEN)  # so that pods run between two hand-overs
    [last] = [each for each in daemons if each.running]
    with pod_load(node.api, "restarted") as restarted:
        for _ in range(HAND_OVERS):
            with node.view.gaps(CARDS) as gaps:
                last.end(number)
                last.start()
                node.view.wait_for(CARDS)
            figures.note(
                f"ms without a card, {kind}, no successor, {number.name}", sum(gaps) * 1000
            )
            time.sleep(BETWEEN)
    for what, outcome in (("hand-overs", handed_over), ("without a successor", restarted)):
        lost = f"pods lost of {outcome.total}, {kind}, {number.name}, {HAND_OVERS} {what}"
        figures.note(lost, len(outcome.refused))
        assert outcome.ran
        for text in outcome.refused.values():
            assert re.search(UNREGISTERED, text), text
    assert len(handed_over.refused) <= len(restarted.refused), handed_over.refused


def serving_of(daemons: list[DaemonProcess]) -> DaemonProcess:
    """The daemon that holds the lock: the running one that does not stand by."""
    [serving] = [
        each for each in daemons
        if each.running and (not each.matching(STANDS_BY) or each.matching(TOOK_OVER))
    ]  # fmt: skip
    return serving
