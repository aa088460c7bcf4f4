"""One daemon takes over from another: for how long the kubelet counts no card, and which pods fail."""

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.cluster import figures
from tests.cluster.host import NodeHost
from tests.cluster.load import pod_load
from tests.cluster.node import Node
from tests.cluster.pods import container, run_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess

CARDS = {f"card_{number}" for number in range(16)}
UNREGISTERED = "no healthy devices present|has been stopped|rpc error"
"""The kubelet's messages about a plugin that has ended, or that ends while it answers."""
HAND_OVERS = 3
HAND_OVERS_FOR_FIGURES = 30
ENDINGS = [signal.SIGTERM, signal.SIGKILL]
STANDS_BY = "standing by|stands by"
TOOK_OVER = "taking over"
REGISTERED = "registered and watched"
SETTLES = 0.1
"""Seconds."""
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
            daemon.wait_for_line(REGISTERED)
            node.view.wait_for(CARDS)
        else:
            daemon.wait_for_line(STANDS_BY)
        first = False
        return daemon

    return start


@contextlib.contextmanager
def noted_gap(node: Node, daemons: Sequence[DaemonProcess], figure: str) -> Iterator[None]:
    """Notes for how long the kubelet does not count every card: until one of these daemons has registered again."""
    before = registrations(daemons)
    with node.view.gaps(CARDS) as gaps:
        yield
        # A kubelet may notice the end of a daemon only after the test has: until then it counts every card.
        poll(lambda: registrations(daemons) > before, "another registration")
        time.sleep(SETTLES)  # nothing shows that the kubelet has closed the last connection
        node.view.wait_for(CARDS)
    figures.note(f"ms without a card, {figure}", sum(gaps) * 1000)


def registrations(daemons: Sequence[DaemonProcess]) -> int:
    """How often these have registered so far."""
    return sum(len(each.matching(REGISTERED)) for each in daemons)


def end(daemon: DaemonProcess, number: signal.Signals) -> None:
    """Ends a daemon that must obey."""
    assert daemon.end(number) == (0 if number == signal.SIGTERM else -number)


@pytest.mark.parametrize("number", ENDINGS)
def test_a_hand_over_at_rest_costs_no_pod(
    node: Node,
    successors: Callable[[], DaemonProcess],
    number: signal.Signals,
    request: pytest.FixtureRequest,
    *,
    for_figures: bool,
) -> None:
    kind = request.node.callspec.id.split("-")[0]
    serving = successors()
    many = for_figures and number == signal.SIGTERM
    for turn in range(HAND_OVERS_FOR_FIGURES if many else HAND_OVERS):
        waiting = successors()
        with noted_gap(node, [serving, waiting], f"{kind}, at rest, {number.name}"):
            end(serving, number)
        if turn < HAND_OVERS:
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
            with noted_gap(node, daemons, f"{kind}, under load, {number.name}"):
                end(serving_of(daemons), number)
            time.sleep(BETWEEN)  # so that pods run between two hand-overs
    [last] = [each for each in daemons if each.running]
    with pod_load(node.api, "restarted") as restarted:
        for _ in range(HAND_OVERS):
            with noted_gap(node, [last], f"{kind}, no successor, {number.name}"):
                end(last, number)
                last.start()
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
