"""Which process holds the lock on a directory, as `/proc/locks` says.

A process in a PID namespace that is not visible from here stands in no line.
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
    """The process that holds a `flock` on `path`; None if none is visible from here."""
    try:
        status = path.stat()
        text = (_PROC / "locks").read_text(errors="replace")
    except OSError:
        return None
    pid = pid_of_lock(text, status.st_dev, status.st_ino)
    return LockHolder(pid, _command(pid)) if pid is not None else None


def pid_of_lock(text: str, device: int, inode: int) -> int | None:
    """The holder's process id in the text of `/proc/locks`.

    A line reads `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`, a waiter's `1: -> FLOCK ...`. File
    systems made of others (overlay, btrfs), whose own device has major number 0, show another device
    there, and the inode decides; of any other file system only its own line counts.
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
