"""The tests' checks find each way in which a daemon can be broken."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE, container, run_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess
from tests.support.broken_daemons import WAYS, broken, end_what_it_left

CARDS = {"card_0", "card_1", "card_2", "card_3"}
SOON = 8.0
"""Seconds; a correct daemon needs one, unless the machine is busy."""
NewDaemon = Callable[[], DaemonProcess]


def check_registration(node: Node, host: NodeHost, new: NewDaemon) -> None:
    new().start()
    node.view.wait_for(CARDS, timeout=SOON)


def check_two_steps(node: Node, host: NodeHost, new: NewDaemon) -> None:
    check_registration(node, host, new)
    poll(lambda: count(node, "allocatable") == 4, "four cards in the node's status")
    host.split(0, 2)
    poll(lambda: count(node, "allocatable") == 3, "three cards in the node's status")
    assert count(node, "capacity") == 4, "the card left in one step"


def count(node: Node, field: str) -> int:
    """Whole cards in the node's status."""
    return int(node.status()[field].get(WHOLE, 0))


def check_control_node(node: Node, host: NodeHost, new: NewDaemon) -> None:
    check_registration(node, host, new)
    assert "biren-m" in run_pod(node.api, "pod", container(gpu=1))["main"].nodes


def check_lock(node: Node, host: NodeHost, new: NewDaemon) -> None:
    serving, waiting = new(), new()
    serving.start()
    node.view.wait_for(CARDS, timeout=SOON)
    waiting.start()
    waiting.wait_for_line("standing by")
    serving.end(signal.SIGTERM)
    poll(lambda: waiting.matching("taking over"), "the other takes over", SOON)
    node.view.wait_for(CARDS, timeout=SOON)


def check_cards(node: Node, host: NodeHost, new: NewDaemon) -> None:
    check_registration(node, host, new)
    cards = run_pod(node.api, "pod", container(gpu=1))["main"].cards
    assert node.view.held()["pod/main"] == [cards]


CHECKS = {
    "registers late": check_registration,
    "leaves a device out in one step": check_two_steps,
    "forgets the control node": check_control_node,
    "keeps the lock": check_lock,
    "answers another card": check_cards,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_daemon_fails_its_check_and_a_correct_one_passes(
    way: str, node: Node, host: NodeHost, new_daemon: NewDaemon, tmp_path: Path
) -> None:
    host.add_gpus(dict.fromkeys(range(4), 1))
    made: list[DaemonProcess] = []

    def new_broken() -> DaemonProcess:
        made.append(new_daemon())
        made[-1].environment |= broken(way, tmp_path)
        return made[-1]

    with pytest.raises(AssertionError):
        CHECKS[way](node, host, new_broken)
    for daemon in made:
        daemon.kill()
    end_what_it_left(tmp_path)
    node.api.delete_pods()
    host.split(0, 1)
    node.view.wait_for(set())
    CHECKS[way](node, host, new_daemon)
