"""What must hold on any machine: ratios within one run, never times; `nox -s ratios`.

A limit is a target with room for a machine that others use: it is there to catch a call that has
become half as expensive again, or work that grows faster than the number of cards.
"""

import sys

from tests.bench.calls import EIGHT_WHOLE, floors, ratio
from tests.bench.document import print_table
from tests.bench.figures import Figure, growth
from tests.bench.load import load
from tests.bench.scale import measure_looks
from tests.support.simulated_node import Node

_OVER_ECHO = 1.3 * 1.25
_OVER_C = 2 * 1.25
_FOUR_TIMES_THE_CARDS = 4 * 1.5


def main() -> int:
    """Exit status 1 if a ratio is above its limit."""
    with Node(EIGHT_WHOLE) as node, floors("ours", "grpcio") as targets:
        node.start_daemon()
        socket = str(node.plugins / "birentech.com-gpu.sock")
        ours, echo, c_server = load("one", 9, 300, socket, *targets)
    figures = [
        Figure("Allocate / echo on ours", "times", ratio(ours, echo), _OVER_ECHO),
        Figure("Allocate / echo on grpcio", "times", ratio(ours, c_server), _OVER_C),
        *(
            Figure(each.name, each.unit, each.value, _FOUR_TIMES_THE_CARDS)
            for each in growth(measure_looks((64, 256), rounds=15))
        ),
    ]
    print_table(figures)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
