"""The installed command, with its living trio tasks named and its wall clock told to jump.

In the directory that SOAK_FOLDER names, `tasks.PID` holds a line for each task, and `clock` the seconds that the
wall clock is off by. Everything else is as installed.
"""

import os
import time
from pathlib import Path
from typing import Any

import trio

from biren_plugin.cli import main


class TaskNames(trio.abc.Instrument):
    """Writes the names of the living tasks before each wait in which they have changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._living: set[trio.lowlevel.Task] = set()
        self._changed = True

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self._living.add(task)
        self._changed = True

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._living.remove(task)
        self._changed = True

    def before_io_wait(self, timeout: float) -> None:
        """Between two batches of tasks; `timeout` is 0 while more are ready."""
        if timeout > 0 and self._changed:
            self._file.write_text("\n".join(sorted(task.name for task in self._living)))
            self._changed = False


def follow_clock(file: Path) -> None:
    """From now on the wall clock is off by the seconds in `file`; the monotonic clock is always right."""
    plain, plain_ns = time.time, time.time_ns
    time.time = lambda: plain() + int(file.read_text())
    time.time_ns = lambda: plain_ns() + int(file.read_text()) * 10**9


if __name__ == "__main__":
    folder = Path(os.environ["SOAK_FOLDER"])
    follow_clock(folder / "clock")
    plain_run = trio.run

    def observed_run(*arguments: Any) -> Any:
        """`trio.run`, observed."""
        names = TaskNames(folder / f"tasks.{os.getpid()}")
        return plain_run(*arguments, instruments=[names])

    trio.run = observed_run  # type: ignore[assignment]
    main()
