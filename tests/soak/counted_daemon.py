"""The installed command, with its living trio tasks counted and its wall clock told to jump.

In the folder that SOAK_FOLDER names, `tasks.PID` holds the count, and `clock` the seconds that the
wall clock is off by. Everything else is as installed.
"""

import os
import time
from pathlib import Path
from typing import Any

import trio

from biren_plugin.cli import main


class TaskCounter(trio.abc.Instrument):
    """Writes the number of living tasks before each wait in which it has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._living = 0
        self._written = -1

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self._living += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._living -= 1

    def before_io_wait(self, timeout: float) -> None:
        """Between two batches of tasks; `timeout` is 0 while more are ready."""
        if timeout > 0 and self._living != self._written:
            self._file.write_text(f"{self._living}\n")
            self._written = self._living


def follow_clock(file: Path) -> None:
    """From now on the wall clock is off by what `file` says; the monotonic one is never."""
    plain, plain_ns = time.time, time.time_ns
    time.time = lambda: plain() + int(file.read_text())
    time.time_ns = lambda: plain_ns() + int(file.read_text()) * 10**9


if __name__ == "__main__":
    folder = Path(os.environ["SOAK_FOLDER"])
    follow_clock(folder / "clock")
    plain_run = trio.run

    def counted_run(*arguments: Any) -> Any:
        """`trio.run`, counted."""
        counter = TaskCounter(folder / f"tasks.{os.getpid()}")
        return plain_run(*arguments, instruments=[counter])

    trio.run = counted_run  # type: ignore[assignment]
    main()
