"""Standard error for a daemon that must not wait for its reader: a bounded buffer and a thread that writes.

A pipe whose reader has stopped, or a file on a hanging disk, blocks `write(2)` for as long as it likes, and
goes on doing so after a signal. So:

1. Nobody but the thread writes to the descriptor. `sys.stderr` itself is replaced: warnings, tracebacks of
   the interpreter and the last line of the process go the same way as the log.
2. Texts that find the buffer full are dropped and counted, and so is what a full disk refuses; a line
   says how many were dropped, where they would have stood, as soon as there is room again.
3. The process ends at most `FLUSH_DEADLINE` later than it would without the texts that are still unwritten.
"""

import atexit
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

CAPACITY: Final = 1024 * 1024
"""Characters in the buffer; the thread holds as many again. The start of a node with 1,024 cards fits."""
FLUSH_DEADLINE: Final = 1.0
"""Seconds."""


class StandardError(io.TextIOBase):
    """Takes texts at once and writes them to `stream`'s descriptor in a thread.

    `report` gives, in that thread, the line about a number of dropped lines. Raises `RuntimeError` where
    no thread can be started.
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
        """Never waits; the text may be dropped."""
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
        """Waits until everything is written, `deadline` seconds at most. Whether it is."""
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
                self._changed.wait_for(lambda: self._buffer or self._is_full)
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
        """Writes `text`. How many of its lines could not be written: a full disk, a closed pipe."""
        data = text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that shares the pipe has made it so
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return data.count(b"\n")
        return 0


def replace_standard_error(report: Callable[[int], str]) -> None:
    """From now on, whatever is printed to `sys.stderr` is written by a thread."""
    with suppress(RuntimeError):  # processes have run out: a log that may block beats none
        sys.stderr = StandardError(sys.stderr, report)
