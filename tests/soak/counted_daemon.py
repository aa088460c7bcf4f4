"""The daemon, with its living trio tasks counted into the file that TASKS_FILE names.

Everything else is the installed command: only `trio.run` gets an instrument.
"""

import os
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


if __name__ == "__main__":
    plain_run = trio.run

    def counted_run(*arguments: Any) -> Any:
        """`trio.run`, counted."""
        return plain_run(*arguments, instruments=[TaskCounter(Path(os.environ["TASKS_FILE"]))])

    trio.run = counted_run  # type: ignore[assignment]
    main()
