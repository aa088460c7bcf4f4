"""Measures everything in turn and prints the table and one JSON document."""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import Figure, percentile, print_table, spread, write_document
from tests.bench.hardware import measure_faults, measure_idle, measure_looks
from tests.bench.load import load
from tests.bench.preferred import measure_preferred
from tests.bench.replay import measure_replay
from tests.simulated_node import Node

EIGHT_WHOLE = dict.fromkeys(range(8), 1)
THREE_RESOURCES = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 4, 7: 4}
GPU = "birentech.com/gpu"
SPARE_PORT = "50955"


def main() -> None:
    """The command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the document to FILE")
    parser.add_argument(
        "--idle", type=float, default=30, metavar="SECONDS", help="how long to idle"
    )
    arguments = parser.parse_args()
    figures = [*measure_start(), *measure_calls(), *measure_floors()]
    figures += ratios(figures)
    figures += [*measure_idle(arguments.idle), *measure_restarts()]
    figures += [*measure_faults(), *measure_looks()]
    figures += [*measure_preferred(), *measure_replay()]
    print_table(figures)
    write_document(figures, arguments.json)


def measure_start(rounds: int = 7) -> list[Figure]:
    """From the start of the process to the kubelet's first list."""
    times = []
    with Node(EIGHT_WHOLE) as node:
        for _ in range(rounds):
            times.append(node.start_daemon())
            node.stop_daemon()
    return [Figure("process start to registered and listed", "ms", statistics.median(times), 300)]


def measure_calls() -> list[Figure]:
    """Allocate through grpcio, and the daemon's memory before and after."""
    with Node(EIGHT_WHOLE) as node:
        node.start_daemon()
        at_rest = node.resident()
        socket = str(node.plugins / "birentech.com-gpu.sock")
        times = load(socket, "one", 4000)
        rate, failed = load(socket, "many", 12_000)
        return [
            *spread("Allocate, one at a time", times, 0.8, 1.5),
            Figure("Allocate, 64 at once", "calls/s", rate, 3000, at_least=True),
            Figure("Allocate, 64 at once, failed", "calls", failed, 0),
            Figure("resident memory, registered", "MiB", at_rest, 40),
            Figure("resident memory, after the load", "MiB", node.resident(), at_rest + 3),
        ]


def measure_floors() -> list[Figure]:
    """The same bytes from servers that do nothing else."""
    figures = []
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        for kind, address in [
            ("ours", f"{folder}/ours.sock"),
            ("purerpc", SPARE_PORT),
            ("grpcio", f"{folder}/grpcio.sock"),
        ]:
            command = [sys.executable, "-m", "tests.bench.floors", kind, address]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
                assert server.stdout is not None
                server.stdout.readline()
                target = f"127.0.0.1:{address}" if kind == "purerpc" else address
                times = load(target, "one", 4000)
                server.kill()
            figures.append(Figure(f"floor: echo on {kind}, p50", "ms", percentile(times, 0.5)))
    return figures


def ratios(figures: list[Figure]) -> list[Figure]:
    """Allocate against the floors of the same run."""
    value = {figure.name: figure.value for figure in figures}
    allocate = value["Allocate, one at a time, p50"]
    return [
        Figure("Allocate / echo on ours", "", allocate / value["floor: echo on ours, p50"], 1.3),
        Figure("Allocate / echo on grpcio", "", allocate / value["floor: echo on grpcio, p50"], 2),
    ]


def measure_restarts(rounds: int = 40) -> list[Figure]:
    """From a new kubelet's socket to complete lists of three resources."""
    times = []
    with Node(THREE_RESOURCES) as node:
        node.start_daemon()
        for _ in range(rounds):
            mark = node.kubelet.mark()
            node.kubelet.restart()
            listening = node.kubelet.wait_for_event("listening", since=mark)
            times.append((node.wait_for_lists(mark) - float(listening["at"])) * 1000)
    return spread("kubelet restart to complete lists, 3 resources", times, 50, 200)


if __name__ == "__main__":
    main()
