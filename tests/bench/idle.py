"""The share of a core that an idle daemon takes, by the number of units on its node.

All nodes idle at the same time, beside a floor: each takes a fraction of a per cent. Then the same of
a node in whose `/dev` other devices come and go.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from biren_plugin.device_plugin.registration_loss import DOUBT
from tests.bench.figures import Figure
from tests.support.simulated_node import Node, Usage

_NODES: Mapping[int, Mapping[int, int]] = {
    8: dict.fromkeys(range(8), 1),
    32: dict.fromkeys(range(32), 1),
    64: dict.fromkeys(range(64), 1),
    1024: dict.fromkeys(range(256), 4),
}
"""Instances by GPU, by how many units that makes."""
_TARGETS = {8: 0.15, 32: 0.25, 64: 0.35, 1024: 2.0}
_BUSY = 64
_NODES_A_SECOND = 100
_NAMES = ("loop", "dm-", "tap", "nbd", "sd", "ttyS")
_FLOOR = """
import trio
async def main():
    while True:
        await trio.sleep(1)  # the wake-up is what is measured
trio.run(main)
"""
SETTLE = DOUBT + 2.0
"""Seconds: what follows a start is not idling, such as `DOUBT`, in which the kubelet is asked each second."""


def measure_idle(seconds: float) -> list[Figure]:
    """Shares of a core and wake-ups, each node's after so many seconds; a third of them of a busy `/dev`."""
    with contextlib.ExitStack() as stack:
        nodes = {units: stack.enter_context(Node(splits)) for units, splits in _NODES.items()}
        for node in nodes.values():
            node.start_daemon()
        floor = stack.enter_context(subprocess.Popen([sys.executable, "-c", _FLOOR]))
        stack.callback(floor.kill)
        time.sleep(SETTLE)  # no event shows the end of a start; its left-over work is not idling
        resting = idle([Usage(floor.pid), *(Usage(node.pid) for node in nodes.values())], seconds)
        memory = {units: node.resident() for units, node in nodes.items()}
        with _busy_dev(nodes[_BUSY]) as made:
            [(busy, busy_wakeups)] = idle([Usage(nodes[_BUSY].pid)], seconds / 3)
        rate = made() / (seconds / 3)
    (floor_share, floor_wakeups), *shares = resting
    rows = [
        Figure("floor: a loop that wakes once a second", "% of a core", floor_share),
        Figure("floor: a loop that wakes once a second, wake-ups", "a second", floor_wakeups),
    ]
    for units, (share, wakeups) in zip(nodes, shares, strict=True):
        rows += [
            Figure("idle", "% of a core", share, _TARGETS[units], cards=units),
            Figure("idle, wake-ups", "a second", wakeups, cards=units),
            Figure("idle, resident memory", "MiB", memory[units], cards=units),
        ]
    return [
        *rows,
        Figure("busy /dev", "% of a core", busy, _TARGETS[_BUSY], cards=_BUSY),
        Figure("busy /dev, wake-ups", "a second", busy_wakeups, cards=_BUSY),
        Figure("busy /dev, nodes made and removed", "a second", rate, cards=_BUSY),
    ]


def idle(processes: Sequence[Usage], seconds: float) -> list[tuple[float, float]]:
    """Of each process the share of a core in %, and wake-ups a second."""
    before = [(each.processor(), each.wakeups()) for each in processes]
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(left, 1))  # the idle time is measured
        for each in processes:
            each.wakeups()  # of threads that end before the next time
    took = time.monotonic() - began
    return [
        ((each.processor() - processor) / took * 100, (each.wakeups() - wakeups) / took)
        for each, (processor, wakeups) in zip(processes, before, strict=True)
    ]


@contextlib.contextmanager
def _busy_dev(node: Node) -> Iterator[Callable[[], int]]:
    """Other devices come and go in the node's `/dev`; gives how many have done so."""
    folder, ended, made = node.host.root / "dev", threading.Event(), 0

    def come_and_go() -> None:
        nonlocal made
        began = time.monotonic()
        while not ended.wait(max(0, began + made / _NODES_A_SECOND - time.monotonic())):
            path = folder / f"{_NAMES[made % len(_NAMES)]}{made % 97}"
            path.symlink_to("/dev/null")
            path.unlink()
            made += 1

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield lambda: made
    finally:
        ended.set()
        thread.join()
