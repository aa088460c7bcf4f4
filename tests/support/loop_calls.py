"""Notes each call of the plugin on this thread, which is the event loop's, that may wait for a disk or a name server.

1. A profile function sees each C function that Python code calls: `os.stat` and some others have no audit event.
2. An audit hook sees the others, whatever calls them. Hooks stay for good, so this one is added once, and
   idle outside of the block.
3. Only calls below a frame of the package count, and none of its simulation or of a test: a test's own
   kubelet runs on the same loop. An import reads files too; a daemon whose image hangs cannot run a line in any case.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import trio

import biren_plugin

_PACKAGE: Final = f"{Path(biren_plugin.__file__).parent}/"
_SIMULATION: Final = f"{_PACKAGE}simulate/"
_TESTS: Final = f"{Path(__file__).parent.parent}/"
_IMPORTING: Final = "<frozen importlib"
_TRIOS_SOCKETS: Final = str(trio._socket.__file__)
_LOOK_UP: Final = "socket.getaddrinfo"
"""Trio looks names up in a thread; on the loop it only reads numeric addresses."""

_WITHOUT_AUDIT: Final = {
    "posix": {"access", "fdatasync", "fsync", "lstat", "readlink", "stat", "statvfs", "sync"},
    "time": {"sleep"},
}
_ADD_WATCH: Final = "add_watch"
"""`INotify.add_watch`, a function of Python that calls the C library by ctypes."""
_AUDITED: Final = {
    "open", "os.chmod", "os.chown", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename",
    "os.rmdir", "os.scandir", "os.symlink", "os.truncate", "os.utime", "fcntl.flock", "fcntl.lockf",
    "socket.bind", "socket.connect", _LOOK_UP, "socket.gethostbyname",
}  # fmt: skip
_OF_SOCKETS: Final = ("socket.bind", "socket.connect")
_NEVER_WAITS: Final = ("/proc/self/", "/proc/stat", "/dev/null")
"""The kernel's own data: behind it are no disk and no driver."""


class _Watch:
    """The calls of one block."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.found: dict[str, int] = {}

    def note(self, name: str, frame: FrameType | None) -> None:
        if name == _LOOK_UP and frame is not None and _is_trios(frame):
            return
        if (where := _place(frame)) is not None:
            key = f"{where}: {name}"
            self.found[key] = self.found.get(key, 0) + 1


_watch: _Watch | None = None
_hooked = False


@contextmanager
def loop_calls() -> Iterator[dict[str, int]]:
    """Give the calls of this thread that may wait, by `module.py function: call`, with their number."""
    global _watch, _hooked
    if not _hooked:
        sys.addaudithook(_on_audit)
        _hooked = True
    before = sys.getprofile()
    watch = _watch = _Watch()
    sys.setprofile(_on_profile)
    try:
        yield watch.found
    finally:
        sys.setprofile(before)
        _watch = None


def _on_profile(frame: FrameType, event: str, called: Any) -> None:
    if _watch is None:
        return
    if event == "c_call":
        if called.__name__ in _WITHOUT_AUDIT.get(called.__module__ or "", ()):
            _watch.note(called.__name__, frame)
    elif event == "call" and frame.f_code.co_name == _ADD_WATCH:
        _watch.note(_ADD_WATCH, frame)


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is None or event not in _AUDITED or threading.get_ident() != _watch.thread:
        return
    what = arguments[1 if event in _OF_SOCKETS else 0]
    # Of sockets, only those at a path count. An open descriptor is not looked up.
    if isinstance(what, tuple) or (event == "open" and isinstance(what, int)):
        return
    if str(what).startswith(_NEVER_WAITS):
        return
    _watch.note(event, sys._getframe(1))


def _is_trios(frame: FrameType) -> bool:
    """Return whether trio itself makes the call, below the wrapper in the module `socket`."""
    callers = (frame, frame.f_back)
    return any(each is not None and each.f_code.co_filename == _TRIOS_SOCKETS for each in callers)


def _place(frame: FrameType | None) -> str | None:
    """Return the innermost place of the package on the stack; None if the call does not count."""
    place = None
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((_IMPORTING, _SIMULATION, _TESTS)):
            return None
        if place is None and file.startswith(_PACKAGE):
            place = f"{file.removeprefix(_PACKAGE)} {frame.f_code.co_name}"
        frame = frame.f_back
    return place
