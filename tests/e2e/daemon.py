"""The installed command as a process, and its log as lines that a test can wait for.

Nothing here sleeps or waits for ever: each wait ends with what it waited for, or with an
AssertionError that shows the log.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

DEADLINE: Final = 30.0
"""Seconds: for what a healthy daemon does in one or two, or in ten where no event tells of a change; the machine
may be busy."""
END_DEADLINE: Final = 5.0
"""Seconds: the promise is 2, the machine may be busy."""

_INSTALLED = Path(sys.executable).with_name("br-gpu-device-plugin")
COMMAND: Final[Sequence[str]] = (
    [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-m", "biren_plugin"]
)


def run_command(*words: str, timeout: float = DEADLINE) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, and return its output."""
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=timeout)


def until(is_so: Callable[[], object]) -> None:
    """Wait for what the daemon does to files or to the API server."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # another process does it: no event says when


class DaemonProcess:
    """The daemon with `flags`; it can be started again after its end."""

    def __init__(self, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self.flags = flags
        self.environment = dict(environment or {})
        """What its environment has besides ours."""
        self.lines: list[str] = []
        """Its log so far, that of earlier starts included."""
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Return whether the process runs and was not waited for."""
        return self._process is not None

    def start(self, *flags: str) -> None:
        """Start it, with more flags behind the given ones."""
        assert self._process is None, "this daemon runs already"
        self._process = subprocess.Popen(
            [*COMMAND, *self.flags, *flags],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def matching(self, pattern: str) -> list[str]:
        """The lines so far in which `pattern` is found."""
        with self._news:
            return [line for line in self.lines if re.search(pattern, line)]

    def assert_no_bug(self) -> None:
        """No line so far tells of a bug in the daemon."""
        assert not self.matching(r"Traceback|on a bug|never (awaited|retrieved)")

    def wait_for_line(self, pattern: str, timeout: float = DEADLINE, *, count: int = 1) -> str:
        """The `count`-th line in which `pattern` is found."""
        deadline = time.monotonic() + timeout
        with self._news:
            while len(found := [line for line in self.lines if re.search(pattern, line)]) < count:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._reader is None or not self._reader.is_alive():
                    raise AssertionError(f"no line {pattern!r} (time {count}) in:{self._shown()}")
                self._news.wait(remaining)
        return found[count - 1]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "not running"
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = END_DEADLINE) -> int:
        """Send it a signal and wait for its end; the exit status."""
        self.send(number)
        return self.wait(timeout)

    def wait(self, timeout: float = END_DEADLINE) -> int:
        """Wait for its end; the exit status (negative: the signal that ended it)."""
        assert self._process is not None, "not running"
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s:{self._shown()}") from None
        self._reap()
        return status

    def kill(self) -> None:
        """End it at once, as the kernel does when memory runs out; harmless if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._reap()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._reader = None  # nothing more will come: wake whoever waits for a line
            self._news.notify_all()

    def _reap(self) -> None:
        assert self._process is not None
        if (reader := self._reader) is not None:
            reader.join(DEADLINE)
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None

    def _shown(self) -> str:
        return "".join(f"\n  {line}" for line in self.lines[-30:]) or " an empty log"
