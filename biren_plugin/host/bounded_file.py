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

    Raises `OSError`, also for a pipe to which no process writes in time.
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
            if not piece and (content or not is_pipe):
                break
            if not piece:  # no process has opened it for writing, yet
                _wait_for_input(descriptor, path, deadline)
            content += piece
        return content
    finally:
        os.close(descriptor)


def _wait_for_input(descriptor: int, path: Path, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    found = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
    if not any(event & select.POLLIN for _, event in found):
        why = f"it is a pipe to which no process wrote in {PIPE_DEADLINE:g} s"
        raise TimeoutError(errno.ETIMEDOUT, why, str(path))
