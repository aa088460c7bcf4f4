"""The node's processes: each with a log, started, ended and waited for by name."""

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
"""Seconds between two looks, at first and after two seconds: a look costs the node milliseconds."""
_SHOWN: Final = 20
"""Lines of a log."""


class Processes:
    """Processes whose logs lie in `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True)

    def start(self, name: str, *command: str) -> None:
        """Starts a program; its output is appended to the log of that name."""
        assert name not in self._running, f"{name} runs already"
        with (self._logs / name).open("ab") as log:
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
        """Ends every process at once, the last started first: the kubelet restarts what it misses."""
        for name in reversed(list(self._running)):
            self.end(name, signal.SIGKILL)

    def wait_until(self, what: str, holds: Callable[[], object]) -> None:
        """Waits for the start of a part; an AssertionError shows each log's end."""
        poll(holds, what, START_DEADLINE, self.shown)

    def log(self, name: str) -> str:
        """What a program wrote so far."""
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

    The real parts notify nobody of what tests wait for: they have to be asked.
    """
    began = time.monotonic()
    soon, later = _POLL
    while not (found := look()):
        passed = time.monotonic() - began
        if passed > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}; {shown()}")
        time.sleep(min(later, max(soon, passed / 20)))  # the real parts notify nobody
    return found
