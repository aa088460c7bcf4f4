"""An unread log, as behind a stopped container runtime, delays nothing."""

import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import COMMAND, DEADLINE, END_DEADLINE, DaemonProcess
from tests.kubelet.client import KubeletProcess

REFUSALS = 3000
LONG = "x" * 1000
"""So that 3,000 refusals are more than the pipe and the daemon's buffers hold together."""


class UnreadDaemon:
    """The daemon of the node with its standard error in a pipe."""

    def __init__(self, flags: Sequence[str], address: str) -> None:
        self.address = address
        self.process = subprocess.Popen(
            [*COMMAND, *flags, f"--metrics-address={address}"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def is_live(self) -> bool:
        """Return whether `/healthz` answers 200."""
        with urllib.request.urlopen(f"http://{self.address}/healthz", timeout=DEADLINE) as answer:
            return bool(answer.status == 200)

    def read_until(self, pattern: str) -> list[str]:
        """The log up to a line in which `pattern` is found."""
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                break
        return lines


@pytest.fixture
def unread(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> Iterator[UnreadDaemon]:
    """A daemon whose log has been full for long: thousands of calls were refused, each with a line."""
    host.add_gpus({0: 1})
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    unread = UnreadDaemon(daemon.flags, address)
    try:
        kubelet.wait_for_list(GPU, healthy=1)
        for number in range(REFUSALS):
            answer = kubelet.allocate(GPU, [f"card_{number + 10}_{LONG}"])
            assert answer["code"] == "INVALID_ARGUMENT"
        yield unread
    finally:
        unread.process.kill()
        unread.process.communicate(timeout=DEADLINE)


def test_an_unread_log_delays_neither_calls_nor_lists_nor_the_end(
    host: SimulatedHost, kubelet: KubeletProcess, unread: UnreadDaemon
) -> None:
    assert kubelet.admit(GPU, 1)["ok"]
    host.pull_node("card_0")
    kubelet.wait_for_list(GPU, unhealthy=1)
    assert unread.is_live()
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(END_DEADLINE) == 0


def test_dropped_lines_are_counted_once_the_log_is_read(unread: UnreadDaemon) -> None:
    *lines, last = unread.read_until("lines of this log were dropped")
    count = re.search(r"(\d+) lines", last)
    assert count is not None
    refusals = [line for line in lines if "refused an allocation" in line]
    assert len(refusals) + int(count[1]) == REFUSALS
