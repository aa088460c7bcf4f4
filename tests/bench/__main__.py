"""Measures everything in turn, and prints, compares, writes and draws the figures."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.calls import measure_calls
from tests.bench.document import print_comparison, print_table, read_document, write_document
from tests.bench.dra import measure_dra
from tests.bench.faults import measure_faults, measure_restarts
from tests.bench.figures import Figure, growth
from tests.bench.hami import measure_hami
from tests.bench.plots import draw_all
from tests.bench.preferred import measure_preferred
from tests.bench.replay import measure_replay
from tests.bench.scale import measure_looks, measure_nodes
from tests.bench.startup import measure_start


def main() -> None:
    """The command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="compare with an earlier run's --json FILE"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the figures as SVG")
    parser.add_argument(
        "--idle", type=float, default=30, metavar="SECONDS", help="how long to idle"
    )
    groups: Mapping[str, Callable[[], list[Figure]]] = {
        "start": measure_start,
        "calls": measure_calls,
        "restarts": measure_restarts,
        "faults": measure_faults,
        "hami": measure_hami,
        "dra": measure_dra,
        "looks": measure_looks,
        "preferred": measure_preferred,
        "replay": measure_replay,
        "nodes": lambda: measure_nodes(arguments.idle),
    }
    parser.add_argument(
        "--only", nargs="+", choices=groups, default=groups, help="what to measure, if not all"
    )
    arguments = parser.parse_args()
    figures = [figure for name in arguments.only for figure in groups[name]()]
    figures += growth(figures)
    print_table(figures)
    if arguments.baseline is not None:
        print_comparison(figures, read_document(arguments.baseline))
    if arguments.json is not None:
        write_document(figures, arguments.json)
    if arguments.plots is not None:
        draw_all(figures, arguments.plots)


if __name__ == "__main__":
    main()
