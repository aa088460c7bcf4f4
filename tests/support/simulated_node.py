"""A simulated node for `bench` and `soak`: host, independent kubelet, the daemon as a process."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from biren_plugin.simulate.host import SimulatedHost
from tests.kubelet.client import KubeletProcess

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 1024**2
_SCHEDULED = 2
"""Of the clocks of another process, the one of its processor time: CPUCLOCK_SCHED in Linux' posix-timers."""


@attrs.frozen
class Usage:
    """The resources that a process uses."""

    pid: int
    _sleeps: dict[str, int] = attrs.field(factory=dict, init=False, eq=False)
    """By thread."""

    def wakeups(self) -> int:
        """How often the process's threads have gone to sleep so far: they woke as often.

        Of a thread that has ended, as often as it had when this was called last.
        """
        for status in Path(f"/proc/{self.pid}/task").glob("*/status"):
            # Another thread may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                self._sleeps[status.parent.name] = int(fields["voluntary_ctxt_switches"])
        return sum(self._sleeps.values())

    def processor(self) -> float:
        """Seconds of processor that the process has used, to the nanosecond: /proc counts in 10 ms."""
        return time.clock_gettime(~self.pid << 3 | _SCHEDULED)


class Node:
    """A context manager; `splits` are instances by GPU."""

    def __init__(
        self, splits: Mapping[int, int], *program: str, log: Path = Path(os.devnull)
    ) -> None:
        """`program` runs the daemon, by default the installed command; its log goes to `log`."""
        self._folder = tempfile.TemporaryDirectory(prefix="br")
        root = Path(self._folder.name)
        self.host = SimulatedHost(root / "host")
        self.host.add_gpus(splits)
        self.plugins = root / "plugins"
        self.plugins.mkdir()
        self.kubelet = KubeletProcess(self.plugins)
        self.expected: dict[str, int] = {}
        for parts in splits.values():
            resource = RESOURCE_OF_SPLIT[parts]
            self.expected[resource] = self.expected.get(resource, 0) + parts
        self._program = program or (str(Path(sys.executable).with_name("br-gpu-device-plugin")),)
        self._log = log
        self.daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.kubelet.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.stop_daemon()
        self.kubelet.stop()
        self._folder.cleanup()

    def start_daemon(self, *flags: str) -> float:
        """Start the daemon; return the ms from the start of its process until the kubelet has every list."""
        mark = self.kubelet.mark()
        started = time.monotonic()
        self.daemon = self.launch(*flags)
        return (self.wait_for_lists(mark) - started) * 1000

    def launch(self, *flags: str, log: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start a daemon, which the caller owns, without waiting; `log` replaces the node's."""
        command = [
            *self._program,
            f"--host-root={self.host.root}",
            f"--device-plugin-dir={self.plugins}",
            f"--pod-resources-dir={self.plugins.parent / 'pod-resources'}",
            f"--status-dir={self.plugins.with_name('status')}",
            *flags,
        ]
        with (log or self._log).open("ab") as file:
            return subprocess.Popen(command, stderr=file)

    def wait_for_lists(self, mark: int) -> float:
        """When the last of the complete lists came that the kubelet got since `mark`."""
        events = [
            self.kubelet.wait_for_list(resource, healthy=count, since=mark)
            for resource, count in self.expected.items()
        ]
        return max(float(event["at"]) for event in events)

    def stop_daemon(self) -> None:
        """Ends the daemon as an operator would."""
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(10)
            self.daemon = None

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self.daemon is not None
        return self.daemon.pid

    def resident(self) -> float:
        """The daemon's resident memory, MiB."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * _PAGE_MIB

    def descriptors(self) -> int:
        """Files and sockets that the daemon has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        """The daemon's threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))
