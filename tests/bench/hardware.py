"""What knowing the hardware costs, and how soon the kubelet knows what befell it."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from biren_plugin.core.health import HealthKeeper
from biren_plugin.core.inventory import InventoryKeeper
from biren_plugin.core.observed import Observed
from biren_plugin.host.reader import HostReader
from biren_plugin.simulate.host import SimulatedHost
from tests.bench.figures import Figure, spread
from tests.simulated_node import Node

GPU = "birentech.com/gpu"
SICK = "card_7"
_IDLE_TARGETS = {8: 0.3, 64: 2.0}
_SCAN_TARGETS = {256: 40.0}


def measure_idle(seconds: float) -> list[Figure]:
    """The daemon's processor share while nothing happens, and how often it wakes."""
    figures = []
    for cards, target in _IDLE_TARGETS.items():
        with Node(dict.fromkeys(range(cards), 1)) as node:
            node.start_daemon()
            time.sleep(2)  # what a start leaves to be done is no idling
            processor, wakeups = node.processor(), node.wakeups()
            time.sleep(seconds)  # being idle is what is measured
            share = (node.processor() - processor) / seconds * 100
            often = (node.wakeups() - wakeups) / seconds
        figures.append(Figure(f"idle, {cards} cards", "% of a core", share, target))
        figures.append(Figure(f"idle, {cards} cards, wake-ups", "1/s", often))
    return figures


def measure_faults(rounds: int = 100) -> list[Figure]:
    """From a fault to the list that says so, with the default intervals."""
    return [figure for cards in (8, 64) for figure in _measure_faults(cards, rounds)]


def _measure_faults(cards: int, rounds: int) -> list[Figure]:
    with Node(dict.fromkeys(range(cards), 1)) as node:
        node.start_daemon("--recover-after=0")
        host = node.host
        nodes = _fault_to_list(
            node, cards, rounds, lambda: host.pull_node(SICK), lambda: host.put_node_back(SICK)
        )
        bus = _fault_to_list(
            node, cards, rounds, lambda: host.silence(SICK), lambda: host.unsilence(SICK)
        )
    return [
        *spread(f"device node gone to list, {cards} cards", nodes, 100, 200),
        *spread(f"PCI function silent to list, {cards} cards", bus, 600, 1200),
    ]


def _fault_to_list(
    node: Node, cards: int, rounds: int, harm: Callable[[], None], mend: Callable[[], None]
) -> list[float]:
    times = []
    for round_ in range(rounds):
        mark = node.kubelet.mark()
        # The daemon looks once a second: faults come at any moment of it.
        time.sleep((round_ * 0.618) % 1)
        harmed = time.monotonic()
        harm()
        event = node.kubelet.wait_for_list(GPU, unhealthy={SICK}, since=mark)
        times.append((float(event["at"]) - harmed) * 1000)
        mark = node.kubelet.mark()
        mend()
        node.kubelet.wait_for_list(GPU, healthy=cards, since=mark)
    return times


def measure_looks(rounds: int = 50) -> list[Figure]:
    """One look at all cards, and one judgement of them, in this process."""
    figures = []
    for cards in (8, 64, 256):
        with tempfile.TemporaryDirectory(prefix="br") as folder:
            host = SimulatedHost(Path(folder) / "host")
            host.add_gpus(dict.fromkeys(range(cards), 1))
            reader, keeper, health = HostReader(host.root), InventoryKeeper(), HealthKeeper()
            scans, judgements = [], []
            for round_ in range(rounds):
                started = time.perf_counter()
                readings = {name: reader.read(name) for name in reader.names()}
                seen = Observed(
                    reader.snapshot({name: card for name, card in readings.items() if card}, ())
                )
                scanned = time.perf_counter()
                health.judge(keeper.update(seen, float(round_)), seen, float(round_))
                judgements.append((time.perf_counter() - scanned) * 1000)
                scans.append((scanned - started) * 1000)
        target = _SCAN_TARGETS.get(cards)
        figures += [
            Figure(f"scan, {cards} cards", "ms", statistics.median(scans), target),
            Figure(f"judgement, {cards} cards", "ms", statistics.median(judgements)),
        ]
    return figures
