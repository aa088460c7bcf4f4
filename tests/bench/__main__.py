"""Measures everything in turn, and prints, compares, writes and draws the figures.

A failed group does not stop the others: its row has the reason, and the exit status is 1.
"""

import argparse
import compileall
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import biren_plugin
from tests.bench.calls import measure_calls
from tests.bench.commands import measure_commands
from tests.bench.document import Run, print_comparison, print_table, read_document, write_document
from tests.bench.dra import measure_dra
from tests.bench.faults import measure_faults, measure_restarts
from tests.bench.figures import Figure, growth
from tests.bench.hami import measure_hami
from tests.bench.hand_over import measure_hand_overs
from tests.bench.idle import measure_idle
from tests.bench.overload import measure_overload
from tests.bench.plots import draw_all
from tests.bench.preferred import measure_preferred
from tests.bench.replay import measure_replay
from tests.bench.scale import measure_looks, measure_nodes
from tests.bench.startup import measure_start

Groups = Mapping[str, Callable[[], list[Figure]]]


def main() -> int:
    """The command line of the benchmark; 1 if a group failed."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="compare with an earlier run's --json FILE"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the figures as SVG")
    parser.add_argument(
        "--idle", type=float, default=30, metavar="SECONDS", help="how long to idle"
    )
    groups: Groups = {
        "start": measure_start,
        "commands": measure_commands,
        "calls": measure_calls,
        "restarts": measure_restarts,
        "hand-overs": measure_hand_overs,
        "faults": measure_faults,
        "hami": measure_hami,
        "dra": measure_dra,
        "overload": measure_overload,
        "looks": measure_looks,
        "preferred": measure_preferred,
        "replay": measure_replay,
        "nodes": measure_nodes,
        "idle": lambda: measure_idle(arguments.idle),
    }
    parser.add_argument(
        "--only", nargs="+", choices=groups, default=groups, help="what to measure, if not all"
    )
    arguments = parser.parse_args()
    # As pip and the image install it: a checkout under PYTHONDONTWRITEBYTECODE compiles at each start.
    compileall.compile_dir(Path(biren_plugin.__file__).parent, quiet=2)
    run = measure(groups, arguments.only)
    print_table(run.figures, run.failures)
    if arguments.baseline is not None:
        print_comparison(run.figures, read_document(arguments.baseline).figures)
    if arguments.json is not None:
        write_document(run, arguments.json)
    if arguments.plots is not None:
        draw_all(run.figures, arguments.plots)
    return 1 if run.failures else 0


def measure(groups: Groups, names: Iterable[str]) -> Run:
    """One group after the other; what a group raises is its failure."""
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in names:
        began = time.monotonic()
        print(f"{name} ...", end="", file=sys.stderr, flush=True)
        try:
            figures += groups[name]()
        except Exception as error:  # noqa: BLE001 - the other groups are measured all the same
            failures[name] = f"{type(error).__name__}: {error}"
        seconds[name] = round(time.monotonic() - began, 1)
        print(f" {seconds[name]:.0f} s", file=sys.stderr)
    return Run([*figures, *growth(figures)], failures, seconds)


if __name__ == "__main__":
    sys.exit(main())
