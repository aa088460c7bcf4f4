"""Under HAMi: how soon a fault is in its list, how soon the node is free for the next pod, and what it costs."""

import json
import time

from tests.bench.calls import EIGHT_WHOLE
from tests.bench.faults import GPU, SICK, sleep_out_of_step
from tests.bench.figures import Figure, spread
from tests.bench.rounds import rounds
from tests.support.api_server import stand_in_api_server
from tests.support.hami_books import Wish
from tests.support.hami_scheduler import CARDS, HamiScheduler
from tests.support.simulated_node import Node


def measure_hami() -> list[Figure]:
    """From a fault to HAMi's list, and from the kubelet's request to the release of the lock."""
    with Node(EIGHT_WHOLE) as node, stand_in_api_server() as api:
        scheduler = HamiScheduler(api)
        scheduler.add_node()
        node.start_daemon("--recover-after=0")
        plain = node.resident()
        node.stop_daemon()
        flags = ["--hami", f"--kubeconfig={api.kubeconfig(node.plugins.parent)}", "--node-name=n1"]
        node.start_daemon("--recover-after=0", *flags)
        api.wait_until(lambda: scheduler.annotation(CARDS) is not None)
        scheduler.tick()
        faults = [_fault(node, scheduler, round_) for round_ in rounds(40, 30)]
        locks = [_lock(node, scheduler, f"p{round_}") for round_ in rounds(40, 10)]
        more = node.resident() - plain
    return [
        *spread("device node gone to HAMi's list", [faults], 100, 300),
        *spread("Allocate to HAMi's lock released", [locks], None, 100),
        Figure("memory of --hami", "MiB", more, 12),
    ]


def _fault(node: Node, scheduler: HamiScheduler, round_: int) -> float:
    sleep_out_of_step(round_)
    began = time.monotonic()
    node.host.pull_node(SICK)
    scheduler.api.wait_until(lambda: not _is_healthy(scheduler))
    took = time.monotonic() - began
    mark = node.kubelet.mark()
    node.host.put_node_back(SICK)
    # The kubelet, too: HAMi may promise the card at once.
    node.kubelet.wait_for_list(GPU, unhealthy=set(), since=mark)
    scheduler.api.wait_until(lambda: _is_healthy(scheduler))
    return took * 1000


def _is_healthy(scheduler: HamiScheduler) -> bool:
    cards = json.loads(scheduler.annotation(CARDS) or "[]")
    return any(each["health"] for each in cards if each["id"] == SICK)


def _lock(node: Node, scheduler: HamiScheduler, pod: str) -> float:
    assert scheduler.run_pod(pod, Wish((1,))) == "bound"
    began = time.monotonic()
    number = node.kubelet.send("admit", resource=GPU, count=1, must_include=[], pod=pod)
    scheduler.api.wait_until(lambda: scheduler.lock is None)
    took = time.monotonic() - began
    answer = node.kubelet.answer(number)
    assert answer["ok"], answer
    node.kubelet.command("free", resource=GPU, ids=answer["ids"])
    scheduler.delete(pod)
    return took * 1000
