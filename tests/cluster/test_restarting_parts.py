"""Each part of the node ends and returns, and no card is in two containers."""

import contextlib
import itertools
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from tests.cluster import figures
from tests.cluster.host import NodeHost
from tests.cluster.load import pod_load
from tests.cluster.node import KUBELET_ROOT, Node
from tests.cluster.pods import container, look_inside, run_pod, start_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess

PLUGINS = KUBELET_ROOT / "device-plugins"
CHECKPOINT = PLUGINS / "kubelet_internal_checkpoint"
LOST_BY_A_RESTART = re.compile(
    "no healthy devices present|unregistered|^StartError: .*context canceled$"
)
"""Why a kubelet's restart costs a pod: admitted before the plugin registered, or, with a card, while the
ending kubelet waited for containerd, whose call ends with it."""
RESTARTS_FOR_FIGURES = 15
"""Of the kubelet, with either signal."""


def cards_of(node: Node, name: str, gpu: int = 1) -> set[str]:
    """Runs a pod; the names of its cards."""
    return set(run_pod(node.api, name, container(gpu=gpu))["main"].cards.split(","))


def settled_cards(node: Node, gpu: int) -> set[str]:
    """The names of the cards of the first pod that gets so many.

    Where no pod has outlived a restart, the kubelet does not show that it kept its record: for half a minute
    a pod is refused a card whose pod may still be listed.
    """
    numbers = itertools.count()

    def another_pods() -> set[str]:
        name = f"settled-{next(numbers)}"
        start_pod(node.api, name, container(gpu=gpu))
        status = node.api.wait_for_phase(name, "Running", "Failed")["status"]
        if status["phase"] == "Running":
            return set(look_inside(node.api, name).cards.split(","))
        assert "before the kubelet restarted" in status["message"], status
        return set()

    return poll(another_pods, "a pod that gets the cards", 45.0)


@contextlib.contextmanager
def recording_how_soon(node: Node, ids: set[str]) -> Iterator[None]:
    """Records the time from the socket of the kubelet that the block starts until it counts these cards."""
    before = (PLUGINS / "kubelet.sock").stat().st_ctime

    def listening() -> float:
        with contextlib.suppress(OSError):
            return (PLUGINS / "kubelet.sock").stat().st_ctime
        return before

    def counts_all() -> bool:
        with contextlib.suppress(grpc.RpcError):
            return node.view.allocatable() == ids
        return False

    def watch() -> None:
        deadline = time.monotonic() + 60
        while listening() == before or not counts_all():
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)  # the real parts send no notification
        took = time.time() - listening()
        figures.note("ms from the kubelet's socket to all cards", took * 1000)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    watcher.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_kubelet_restart_every_card_counts_and_a_held_one_stays_held(
    node: Node, eight_cards: set[str], number: signal.Signals, *, for_figures: bool
) -> None:
    held = cards_of(node, "before")
    for _ in range(RESTARTS_FOR_FIGURES if for_figures else 1):
        node.stop_kubelet(number)
        with recording_how_soon(node, eight_cards):
            node.start_kubelet()
    node.view.wait_for(eight_cards)
    assert cards_of(node, "after", gpu=7) == eight_cards - held


def test_kubelet_restarts_under_load_lose_only_pods_that_were_admitted_before_registration(
    node: Node, host: NodeHost, eight_cards: set[str]
) -> None:
    host.add_gpus(dict.fromkeys(range(8, 24), 1))  # more than the load needs at any time
    eight_cards |= {f"card_{number}" for number in range(8, 24)}
    node.view.wait_for(eight_cards)
    with pod_load(node.api, "load") as outcome:
        for _ in range(2):
            node.restart_kubelet()
            node.view.wait_for(eight_cards)
            outcome.wait_for_another()  # those created during a restart may all be refused
    for message in outcome.refused.values():
        assert LOST_BY_A_RESTART.search(message), message
    node.view.wait_until_none_is_held()
    node.view.wait_for(eight_cards, timeout=40.0)
    assert settled_cards(node, gpu=24) == eight_cards


def test_after_containerd_was_killed_containers_keep_running_and_pods_start(
    node: Node, eight_cards: set[str]
) -> None:
    held = cards_of(node, "before")
    node.processes.end("containerd", signal.SIGKILL)
    node.containerd.start()
    assert cards_of(node, "after") <= eight_cards - held
    assert node.api.pod("before")["status"]["phase"] == "Running"


def test_a_directory_that_the_kubelet_re_creates_is_found(
    node: Node, eight_cards: set[str]
) -> None:
    node.stop_kubelet()
    shutil.rmtree(PLUGINS)
    node.start_kubelet()
    node.view.wait_for(eight_cards)
    assert cards_of(node, "after") <= eight_cards


def test_after_a_lost_checkpoint_no_card_is_in_two_containers(
    node: Node, eight_cards: set[str]
) -> None:
    held = cards_of(node, "before")
    node.stop_kubelet()  # perhaps before the daemon asked which pod has got the card
    CHECKPOINT.unlink()
    node.start_kubelet()
    node.view.wait_for(eight_cards - held)
    # Seven are allocatable, of which the kubelet counts one as used by the pod that has the eighth.
    assert cards_of(node, "after", gpu=6) < eight_cards - held


def test_pods_bound_while_the_kubelet_loses_its_checkpoint_get_no_held_card(
    node: Node, eight_cards: set[str]
) -> None:
    # Admitted by age, in seconds: perhaps before the pod that holds a card is listed.
    start_pod(node.api, "all", container(gpu=8), nodeName=None, schedulerName="none")
    held = cards_of(node, "before")
    node.stop_kubelet()
    CHECKPOINT.unlink()
    node.api.bind("all")
    start_pod(node.api, "one", container(gpu=1))
    node.start_kubelet()
    refused = node.api.wait_for_phase("all", "Failed")["status"]["message"]
    assert re.search(rf"pod default/before (still )?h[eo]lds? {min(held)}|Available: 7", refused)
    node.api.wait_for_phase("one", "Running")
    got = {look_inside(node.api, "one").cards}
    assert got < eight_cards - held
    node.view.wait_for(eight_cards - held)
    assert cards_of(node, "after", gpu=5) < eight_cards - held - got


def reboot(node: Node) -> None:
    """Ends the kubelet, the containers and the runtime; only the disk stays."""
    node.stop_kubelet()
    node.containerd.end_all_containers()
    node.processes.end("containerd", signal.SIGKILL)
    node.containerd.start()


def test_after_a_reboot_with_the_daemon_first_pods_get_their_cards(
    node: Node, eight_cards: set[str], daemon: DaemonProcess
) -> None:
    run_pod(node.api, "stays", container(gpu=1), restartPolicy="Always")
    daemon.kill()
    reboot(node)
    daemon.start()
    node.start_kubelet()
    node.view.wait_for(eight_cards)
    assert cards_of(node, "after", gpu=7) < eight_cards


def test_after_a_reboot_with_the_kubelet_first_pods_get_their_cards(
    node: Node, eight_cards: set[str], daemon: DaemonProcess
) -> None:
    run_pod(node.api, "stays", container(gpu=1), restartPolicy="Always")
    daemon.kill()
    reboot(node)
    node.start_kubelet()
    daemon.start()
    node.view.wait_for(eight_cards)
    assert cards_of(node, "after", gpu=7) < eight_cards
