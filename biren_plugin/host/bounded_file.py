"""The beginning of a file that a person named, whatever it is: no pipe or device holds up the reader."""

import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import Final

PIPE_DEADLINE: Final = 5.0
"""Seconds until the content of a pipe, as of a shell's `<(command)`, is complete."""


def read_bounded(path: Path, most: int) -> bytes:
    """Return the content of a file, of which at most `most + 1` bytes are read. Blocks.

    Raises `OSError`, also for a pipe that no process has written to its end in time.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        deadline = time.monotonic() + PIPE_DEADLINE
        content = b""
        while len(content) <= most:
            try:
                piece = os.read(descriptor, most + 1 - len(content))
            except BlockingIOError:  # a process has it open for writing
                _wait_for_input(descriptor, path, deadline)
                continue
            is_end = bool(content) or not is_pipe
            if not piece and (is_end or not _wait_for_input(descriptor, path, deadline)):
                break  # of a pipe, no process may have opened it for writing yet
            content += piece
        return content
    finally:
        os.close(descriptor)


def _wait_for_input(descriptor: int, path: Path, deadline: float) -> bool:
    """Return whether there is input: the writers of a pipe may also have closed it. Raises `TimeoutError`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    found = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
    if not found:
        why = f"it is a pipe that no process has written to its end in {PIPE_DEADLINE:g} s"
        raise TimeoutError(errno.ETIMEDOUT, why, str(path))
    return any(event & select.POLLIN for _, event in found)
