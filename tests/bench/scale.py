"""How everything grows with the number of cards on one node: 8, 64, 256."""

import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from biren_plugin.core.health.verdicts import HealthKeeper
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.observed import Observed
from biren_plugin.device_plugin.registration import SECOND_STREAM
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.simulate.host import SimulatedHost
from biren_plugin.wire.messages import write_list
from tests.bench.figures import Figure, spread
from tests.bench.load import load
from tests.support.simulated_node import Node

CARDS = (8, 64, 256)
GPU = "birentech.com/gpu"
SICK = "card_7"
_SCAN_TARGETS = {256: 40.0}
_LIST_TARGETS = {256: 10.0}


def measure_nodes(sizes: Sequence[int] = CARDS, starts: int = 5, calls: int = 300) -> list[Figure]:
    """Nodes of each size with a daemon as a process: start, Allocate, list sent, memory."""
    return [figure for cards in sizes for figure in _measure_node(cards, starts, calls)]


def _measure_node(cards: int, starts: int, calls: int) -> list[Figure]:
    with Node(dict.fromkeys(range(cards), 1)) as node:
        times = []
        for _ in range(starts):
            node.stop_daemon()
            times.append(node.start_daemon("--recover-after=0"))
        socket = str(node.plugins / "birentech.com-gpu.sock")
        memory = node.resident()
        (allocations,) = load("one", 4, calls, socket)
        # A stream that opens sooner counts as the kubelet's: its end would end the registration.
        time.sleep(SECOND_STREAM)  # the daemon has no event for the end of this second
        first_lists = load("list", 100, socket)
        pulls = _pull_to_list(node, cards)
    return [
        Figure("start", "ms", statistics.median(times), cards=cards),
        *spread("Allocate", allocations, cards=cards),
        Figure(
            "list built and sent",
            "ms",
            statistics.median(first_lists),
            _LIST_TARGETS.get(cards),
            cards=cards,
        ),
        Figure("node pulled to list", "ms", statistics.median(pulls), cards=cards),
        Figure("resident memory", "MiB", memory, cards=cards),
    ]


def _pull_to_list(node: Node, cards: int, rounds: int = 7) -> list[float]:
    """From a pulled device node to the kubelet's list: scanned, judged, written, sent, read."""
    times = []
    for _ in range(rounds):
        mark = node.kubelet.mark()
        pulled = time.monotonic()
        node.host.pull_node(SICK)
        event = node.kubelet.wait_for_list(GPU, unhealthy={SICK}, since=mark)
        times.append((float(event["at"]) - pulled) * 1000)
        mark = node.kubelet.mark()
        node.host.put_node_back(SICK)
        node.kubelet.wait_for_list(GPU, healthy=cards, since=mark)
    return times


def measure_looks(cards: Sequence[int] = CARDS, rounds: int = 40) -> list[Figure]:
    """In this process: a scan of all cards, their verdicts, and their list as bytes.

    Times are processor times: none of the three waits, and other processes are not counted.
    """
    gc.collect()
    gc.freeze()  # as the daemon does: imported modules are not garbage, and are not scanned
    return [figure for count in cards for figure in _measure_looks(count, rounds)]


def _measure_looks(cards: int, rounds: int) -> list[Figure]:
    scans, judgements, builds = [], [], []
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        host = SimulatedHost(Path(folder) / "host")
        host.add_gpus(dict.fromkeys(range(cards), 1))
        reader, keeper, health = DriverCardReader(host.root), InventoryKeeper(), HealthKeeper()
        for round_ in range(rounds):
            started = time.thread_time()
            readings = {name: reader.read(name) for name in reader.names()}
            found = {name: card for name, card in readings.items() if card is not None}
            seen = Observed(reader.snapshot(found, ()))
            scanned = time.thread_time()
            inventory = health.judge(keeper.update(seen, float(round_)), seen, float(round_))
            judged = time.thread_time()
            message = write_list(inventory.lists[0]).SerializeToString()
            built = time.thread_time()
            scans.append((scanned - started) * 1000)
            judgements.append((judged - scanned) * 1000)
            builds.append((built - judged) * 1000)
    return [
        Figure("scan", "ms", statistics.median(scans), _SCAN_TARGETS.get(cards), cards=cards),
        Figure("judgement", "ms", statistics.median(judgements), cards=cards),
        Figure("list built", "ms", statistics.median(builds), cards=cards),
        Figure("list", "bytes", len(message), cards=cards),
    ]
