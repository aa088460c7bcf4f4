"""What `status` and `devices` take as commands: wall time over that of a Python that does nothing."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.calls import EIGHT_WHOLE
from tests.bench.figures import Figure
from tests.bench.rounds import rounds
from tests.support.simulated_node import Node

_COMMAND = str(Path(sys.executable).with_name("br-gpu-device-plugin"))
_TARGET = 80


def measure_commands() -> list[Figure]:
    """All in turn, so that what else the machine does falls on each of them."""
    with Node(EIGHT_WHOLE) as node:
        node.start_daemon()
        status = [_COMMAND, "status", f"--status-dir={node.plugins.with_name('status')}"]
        devices = [_COMMAND, "devices", f"--host-root={node.host.root}"]
        floors = [[sys.executable, "-c", code] for code in ("pass", "import cyclopts")]
        floor, cyclopts, *commands = _in_turn([*floors, status, devices])
    return [
        Figure("floor: python -c pass", "ms", statistics.median(floor)),
        Figure("floor: import cyclopts over python -c pass", "ms", _over(cyclopts, floor)),
        *(
            Figure(f"`{name}` over python -c pass", "ms", _over(times, floor), _TARGET)
            for name, times in zip(("status", "devices"), commands, strict=True)
        ),
    ]


def _in_turn(commands: list[list[str]]) -> list[list[float]]:
    """The milliseconds of each command, round by round."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in rounds(20, 10):
        for command, its_times in zip(commands, times, strict=True):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            its_times.append((time.perf_counter() - started) * 1000)
    return times


def _over(times: list[float], floor: list[float]) -> float:
    return statistics.median(one - two for one, two in zip(times, floor, strict=True))
