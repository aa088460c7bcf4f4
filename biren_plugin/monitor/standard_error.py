"""Standard error that never blocks the daemon: a bounded buffer, and a thread that writes.

A pipe whose reader has stopped, or a file on a hanging disk, blocks `write(2)` indefinitely, even after a
signal. So:

1. Only the thread writes to the descriptor. `sys.stderr` itself is replaced: warnings, tracebacks of
   the interpreter and the last line of the process go the same way as the log.
2. Texts beyond the buffer, and texts that a full disk refuses, are dropped and counted; once there is room
   again, a line in their place reports how many. A full disk is tried every `RETRY` until that line is out.
3. Unwritten texts delay the end of the process by at most `FLUSH_DEADLINE`.
"""

import atexit
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, TextIO

CAPACITY: Final = 1024 * 1024
"""Characters in the buffer; the thread holds as many again. The start of a node with 1,024 cards fits."""
FLUSH_DEADLINE: Final = 1.0
RETRY: Final = 5.0
"""Seconds."""


class StandardError(io.TextIOBase):
    """Accepts texts at once, and writes them to `stream`'s descriptor in a thread.

    `report`, called in that thread, returns the line about a number of dropped lines. Raises
    `RuntimeError` if no thread can be started.
    """

    def __init__(self, stream: TextIO, report: Callable[[int], str]) -> None:
        self._descriptor = stream.fileno()
        self._is_terminal = stream.isatty()
        self._report = report
        self._buffer: list[str] = []
        self._free = CAPACITY
        self._is_full = False
        self._dropped = 0
        self._idle = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="standard-error", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    def write(self, text: str) -> int:
        """Queue `text`, or drop it; never waits."""
        with self._changed:
            if len(text) > self._free:
                self._is_full = True  # until the thread takes the buffer: no text overtakes another
            if self._is_full:
                self._dropped += text.count("\n")
            else:
                self._buffer.append(text)
                self._free -= len(text)
            self._changed.notify_all()
        return len(text)

    def drain(self, deadline: float = FLUSH_DEADLINE) -> bool:
        """Wait at most `deadline` seconds until everything is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._idle and not self._buffer, deadline)

    def isatty(self) -> bool:
        """Whether `stream` is a terminal."""
        return self._is_terminal

    def fileno(self) -> int:
        """The descriptor of `stream`."""
        return self._descriptor

    def writable(self) -> bool:
        """Always."""
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                self._changed.notify_all()
                retry = RETRY if self._dropped else None
                self._changed.wait_for(lambda: self._buffer or self._is_full, retry)
                self._idle = False
                text = "".join(self._buffer)
                self._buffer.clear()
                self._free, self._is_full = CAPACITY, False
                dropped, self._dropped = self._dropped, 0
            lost = self._put(text)
            if dropped and self._put(self._report(dropped)):
                lost += dropped
            with self._changed:
                self._dropped += lost

    def _put(self, text: str) -> int:
        """Write `text`; return how many of its lines a full disk or a closed pipe refused."""
        data = text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that shares the pipe made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return data.count(b"\n")
        return 0


def replace_standard_error(report: Callable[[int], str]) -> None:
    """Make a thread write everything that is printed to `sys.stderr`."""
    with suppress(RuntimeError):  # processes have run out: a log that may block beats none
        sys.stderr = StandardError(sys.stderr, report)


def exit_at_once(status: int) -> NoReturn:
    """End the process without waiting for its threads, but for the log, `FLUSH_DEADLINE` at most."""
    if isinstance(sys.stderr, StandardError):
        sys.stderr.drain()
    os._exit(status)
