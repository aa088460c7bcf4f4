"""Where a start's time goes: the whole of it, its imports, and each package's share of these.

The shares are those that `python -X importtime` prints, which costs time itself: they show which package
is expensive, and the sum is measured without it.
"""

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.calls import EIGHT_WHOLE
from tests.bench.figures import Figure
from tests.bench.rounds import rounds
from tests.support.simulated_node import Node

_COMMAND = str(Path(sys.executable).with_name("br-gpu-device-plugin"))
_ROW = re.compile(r"import time: +(\d+) \| +\d+ \| +(\S+)")
_BY_ITSELF = "site"
"""The last module that an interpreter imports before it does anything."""
_SHOWN = 12
_TIMED = """
import gc, time
started = time.perf_counter()
gc.disable()
{imports}
print((time.perf_counter() - started) * 1000)
"""
_OURS = """
import biren_plugin.cli, biren_plugin.commands.plain_settings, biren_plugin.commands.run_daemon
import trio, biren_plugin.daemon, biren_plugin.monitor.logs
"""
_FLOOR = """
import trio, purerpc
from google.protobuf import descriptor_pool, runtime_version, symbol_database
from google.protobuf.internal import builder
"""
"""The packages without which no card is offered: their own imports and those of generated messages."""


def measure_start() -> list[Figure]:
    """From the start of the process to the kubelet's first list; what imports take of it."""
    with Node(EIGHT_WHOLE) as node:
        times, imports, floor = [], [], []
        for _ in rounds(15, 15):
            times.append(node.start_daemon())
            node.stop_daemon()
            imports.append(_milliseconds(_OURS))
            floor.append(_milliseconds(_FLOOR))
    return [
        Figure("process start to registered and listed", "ms", statistics.median(times), 200),
        Figure("process start to registered and listed, best", "ms", min(times)),
        Figure("imports", "ms", statistics.median(imports), 150),
        Figure("imports, best", "ms", min(imports)),
        Figure("floor: import trio, purerpc, protobuf", "ms", statistics.median(floor)),
        *_shares(),
    ]


def _milliseconds(imports: str) -> float:
    """What these imports take in a new interpreter."""
    command = [sys.executable, "-c", _TIMED.format(imports=imports)]
    return float(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def _shares() -> list[Figure]:
    """What a daemon has imported by the time that it is registered, by package."""
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        log = Path(folder) / "log"
        with Node(EIGHT_WHOLE, sys.executable, "-X", "importtime", _COMMAND, log=log) as node:
            node.start_daemon()
        rows = [_ROW.match(line) for line in log.read_text().splitlines()]
    modules = [(row[2], int(row[1]) / 1000) for row in rows if row is not None]
    first = next(index for index, (name, _) in enumerate(modules) if name == _BY_ITSELF) + 1
    total = sum(milliseconds for _, milliseconds in modules[first:])
    by_package: dict[str, float] = {}
    for name, milliseconds in modules[first:]:
        package = name.partition(".")[0]
        by_package[package] = by_package.get(package, 0.0) + milliseconds
    dearest = sorted(by_package.items(), key=lambda item: -item[1])[:_SHOWN]
    return [
        Figure("modules imported by a daemon", "modules", len(modules) - first),
        *(Figure(f"imports, share of {name}", "%", took / total * 100) for name, took in dearest),
    ]
