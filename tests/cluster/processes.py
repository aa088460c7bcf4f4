"""The node's processes: started, ended and awaited by name, each with a log."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

Found = TypeVar("Found")
START_DEADLINE: Final = 60.0
"""Seconds: each part starts in two or three, unless the machine is busy."""
END_DEADLINE: Final = 15.0
_POLL: Final = 0.02, 0.1
"""Seconds between two calls of `look`, at first and after two seconds: a call costs the node milliseconds."""
_SHOWN: Final = 20
"""Lines of a log."""


class Processes:
    """Processes whose logs lie in `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._begun: dict[str, int] = {}
        """Where in the log each program's last start lies, in bytes."""
        logs.mkdir(parents=True)

    def start(self, name: str, *command: str) -> None:
        """Starts a program; its output is appended to the log of that name."""
        assert name not in self._running, f"{name} runs already"
        with (self._logs / name).open("ab") as log:
            self._begun[name] = log.tell()
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal and waits for the end, at most for `END_DEADLINE`; then kills."""
        process = self._running.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(END_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_DEADLINE)

    def kill_all(self) -> None:
        """Kills every process, the last started first: the kubelet would restart containers that end."""
        for name in reversed(list(self._running)):
            self.end(name, signal.SIGKILL)

    def wait_until(self, what: str, holds: Callable[[], object]) -> None:
        """Waits for the start of a part; an AssertionError shows the end of each log."""
        poll(holds, what, START_DEADLINE, self.shown)

    def has_said(self, name: str, text: str) -> bool:
        """Whether the program has printed this text since its last start."""
        with (self._logs / name).open("rb") as log:
            log.seek(self._begun[name])
            return text.encode() in log.read()

    def log(self, name: str) -> str:
        """The program's output so far."""
        return (self._logs / name).read_text(errors="replace")

    def shown(self) -> str:
        """The last lines of each log."""
        ends = {
            path.name: self.log(path.name).splitlines()[-_SHOWN:] for path in self._logs.iterdir()
        }
        return "".join(f"\n{name}:\n" + "\n".join(lines) for name, lines in ends.items())


def poll(
    look: Callable[[], Found], what: str, timeout: float = 20.0, shown: Callable[[], object] = str
) -> Found:
    """The first true value of `look`; an AssertionError with `shown()` after `timeout` seconds.

    The real parts send no notification of what tests wait for, so they have to be polled.
    """
    began = time.monotonic()
    soon, later = _POLL
    while not (found := look()):
        passed = time.monotonic() - began
        if passed > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}; {shown()}")
        time.sleep(min(later, max(soon, passed / 20)))  # the real parts send no notification
    return found
