"""What a call costs: Allocate through clients that are not ours, beside floors of the same run."""

import contextlib
import socket as sockets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.figures import Figure, percentile, spread
from tests.bench.load import load
from tests.support.simulated_node import Node

EIGHT_WHOLE = dict.fromkeys(range(8), 1)
_SCHEMA = Path(__file__).parents[2] / "schema"
_REQUEST = '{"container_requests": [{"devices_ids": ["card_1"]}]}'


def measure_calls() -> list[Figure]:
    """Allocate one at a time, beside its floors, then 64 at once; memory before and after."""
    with Node(EIGHT_WHOLE) as node, floors("ours", "purerpc", "grpcio") as targets:
        node.start_daemon()
        at_rest = node.resident()
        socket = str(node.plugins / "birentech.com-gpu.sock")
        ours, *others = load("one", 8, 500, socket, *targets)
        rate, failed, times = load("many", 12_000, socket)
        loaded = node.resident()
        go = [_call_from_go(Path(socket)) for _ in range(10)]
    return [
        *spread("Allocate, one at a time", ours, 0.8, 1.5),
        *spread("Allocate, 64 at once", [times], None, 50),
        Figure("Allocate, 64 at once", "calls/s", rate, 3000, at_least=True),
        Figure("Allocate, 64 at once, failed", "calls", failed, 0),
        *(
            figure
            for kind, rounds in zip(("ours", "purerpc", "grpcio"), others, strict=True)
            for figure in spread(f"floor: echo on {kind}", rounds)
        ),
        Figure("Allocate / echo on ours", "times", ratio(ours, others[0]), 1.15),
        Figure("Allocate / echo on grpcio", "times", ratio(ours, others[2]), 1.5),
        Figure("Allocate by a Go client, its start included", "ms", statistics.median(go)),
        Figure("resident memory, registered", "MiB", at_rest, 36),
        Figure("resident memory, after the load", "MiB", loaded, round(at_rest + 3, 1)),
    ]


def ratio(ours: Sequence[Sequence[float]], floor: Sequence[Sequence[float]]) -> float:
    """Of two medians that were measured in turn: the rounds' own ratios, and the median of these."""
    pairs = zip(ours, floor, strict=True)
    return statistics.median(percentile(one, 0.5) / percentile(two, 0.5) for one, two in pairs)


@contextlib.contextmanager
def floors(*kinds: str) -> Iterator[list[str]]:
    """The targets of servers that return the same bytes and do nothing else: see `floors.py`."""
    with tempfile.TemporaryDirectory(prefix="br") as folder, contextlib.ExitStack() as servers:
        targets = []
        for kind in kinds:
            address = _free_port() if kind == "purerpc" else f"{folder}/{kind}.sock"
            command = [sys.executable, "-m", "tests.bench.floors", kind, address]
            server = servers.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            servers.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline(), f"the floor {kind} has ended"
            targets.append(f"127.0.0.1:{address}" if kind == "purerpc" else address)
        yield targets


def _free_port() -> str:
    """A TCP port that no process has."""
    with sockets.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def _call_from_go(socket: Path) -> float:
    """Milliseconds of a process that makes one call with grpc-go's framing."""
    command = [
        str(Path(sys.executable).with_name("buf")), "curl",
        "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(socket),
        "--schema", str(_SCHEMA), "--data", _REQUEST,
        "http://localhost/v1beta1.DevicePlugin/Allocate",
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return (time.perf_counter() - started) * 1000
