"""GetPreferredAllocation on the wire, from 8 to 128 cards: half of them are asked for."""

from typing import Final

from tests.bench.figures import Figure, percentile
from tests.bench.load import load
from tests.simulated_node import Node

_TARGETS: Final = {8: 1.5, 16: None, 24: 2.5, 32: 3.0, 64: None, 128: 10.0}
"""Milliseconds at the 99th percentile."""
_QUARTERS: Final = dict.fromkeys(range(8), 4)
_CALLS: Final = 1000


def measure_preferred() -> list[Figure]:
    """Rows for whole GPUs in groups of four, and one for 8 GPUs in quarters."""
    figures = []
    for cards, target in _TARGETS.items():
        node = Node(dict.fromkeys(range(cards), 1))
        figures += _measure(node, "birentech.com-gpu.sock", cards, "", target)
    quarters = Node(_QUARTERS)
    return figures + _measure(quarters, "birentech.com-1-4-gpu.sock", 32, " quarters", 3.0)


def _measure(node: Node, socket: str, cards: int, kind: str, target: float | None) -> list[Figure]:
    with node:
        node.start_daemon()
        load(str(node.plugins / socket), f"prefer:1:{cards}", 100)
        before = node.resident()
        times = load(str(node.plugins / socket), f"prefer:{cards // 2}:{cards}", _CALLS)
        grown = node.resident() - before
    name = f"preferred, {cards // 2} of {cards}{kind}"
    return [
        Figure(f"{name}, p50", "ms", percentile(times, 0.5)),
        Figure(f"{name}, p99", "ms", percentile(times, 0.99), target),
        Figure(f"{name}, memory grown by {_CALLS} calls", "MiB", grown, 1),
    ]
