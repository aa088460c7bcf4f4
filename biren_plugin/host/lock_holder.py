"""Which process holds the lock on a directory, according to `/proc/locks`.

A process in a PID namespace that is not visible from here is not listed there.
"""

import os
from pathlib import Path

import attrs

_PROC = Path("/proc")
_LONGEST = 80


@attrs.frozen
class LockHolder:
    """A process that holds a lock."""

    pid: int
    command: str
    """Its command line, cut short; empty if it cannot be read."""

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")


def find_lock_holder(path: Path) -> LockHolder | None:
    """Return the process that holds a `flock` on `path`; None if no holder is visible from here."""
    try:
        status = path.stat()
        text = (_PROC / "locks").read_text(errors="replace")
    except OSError:
        return None
    pid = pid_of_lock(text, status.st_dev, status.st_ino)
    return LockHolder(pid, _command(pid)) if pid is not None else None


def pid_of_lock(text: str, device: int, inode: int) -> int | None:
    """Return the holder's process id in the text of `/proc/locks`.

    A line reads `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`, a waiter's `1: -> FLOCK ...`. On file
    systems built on others (overlay, btrfs), whose own device has major number 0, the line has another
    device, and the inode decides. On any other file system both must match.
    """
    exact = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    found: int | None = None
    for line in text.splitlines():
        match line.split():
            case [_, "FLOCK", _, _, pid, file, *_] if pid.isdigit() and int(pid) > 0:
                if file == exact:
                    return int(pid)
                same_inode = file.rpartition(":")[2] == str(inode)
                if same_inode and os.major(device) == 0 and found is None:
                    found = int(pid)
    return found


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = b" ".join(words).decode(errors="replace").strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
