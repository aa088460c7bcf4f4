"""GetPreferredAllocation on the wire, from 8 to 128 cards: half of them are asked for."""

from typing import Final

from tests.bench.figures import Figure, spread
from tests.bench.load import load
from tests.support.simulated_node import Node

_TARGETS: Final = {8: 1.5, 16: None, 24: 2.5, 32: 3.0, 64: None, 128: 10.0}
"""Milliseconds at the 99th percentile."""
_QUARTERS: Final = dict.fromkeys(range(8), 4)
_ROUNDS: Final = 8
_CALLS: Final = 250


def measure_preferred() -> list[Figure]:
    """Rows for whole GPUs in groups of four, and one for 8 GPUs in quarters."""
    figures = []
    for cards, target in _TARGETS.items():
        node = Node(dict.fromkeys(range(cards), 1))
        rounds, grown = _measure(node, "birentech.com-gpu.sock", cards)
        figures += spread("half of all preferred", rounds, None, target, cards=cards)
        what = f"memory grown by 1,000 preferences, {cards // 2} of {cards}"
        figures.append(Figure(what, "MiB", grown, 1))
    rounds, _ = _measure(Node(_QUARTERS), "birentech.com-1-4-gpu.sock", 32)
    return figures + spread("16 of 32 quarters preferred", rounds, None, 3.0)


def _measure(node: Node, socket: str, cards: int) -> tuple[list[list[float]], float]:
    with node:
        node.start_daemon()
        path = node.plugins / socket
        load("prefer", 1, 100, 1, cards, path)
        before = node.resident()
        rounds = load("prefer", _ROUNDS, _CALLS, cards // 2, cards, path)
        return rounds, node.resident() - before
