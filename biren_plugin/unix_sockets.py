"""Unix sockets: the listener, which peers may connect, and the identity of a socket file.

A path is looked up on its disk, which may hang, so everything that takes one blocks, or takes the thread
that does. What a descriptor already leads to (accept, listen, close) waits for no disk.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from biren_plugin.errors import NoThread
from biren_plugin.notice import WARNING, say
from biren_plugin.records import frozen
from biren_plugin.worker_thread import PATIENCE, WorkerThread

GOODBYE: Final = 1.0
"""Seconds that a closed listener waits for the disk of its file."""

_BACKLOG = 32
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: `struct ucred` of Linux
_UID_MAP = Path("/proc/self/uid_map")
_ALL_IDS = ["0", "0", "4294967295"]
_OVERFLOW_UID = 65534
"""What user_namespaces(7) shows for a user id that is not mapped."""


@frozen
class FileIdentity:
    """Identifies a file: a new file under the same name has another identity."""

    device: int
    inode: int
    made_ns: int
    """The mtime, since inode numbers are soon reused. Not the ctime, which chmod and relabelling change."""

    @classmethod
    def of(cls, path: Path, unreadable: "FileIdentity | None" = None) -> "FileIdentity | None":
        """Return the identity of the file at `path`; None if there is no file. Blocks.

        `unreadable`: what counts as the identity while that cannot be read.
        """
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return unreadable
        return cls(status.st_dev, status.st_ino, status.st_mtime_ns)


async def connect(path: Path, thread: WorkerThread) -> trio.SocketStream:
    """Return a connection to the socket at `path`, which `thread` looks up. Raises `OSError` and `NoThread`."""
    return stream_of(await thread.acquire(partial(connect_at_once, path), socket.socket.close))


def stream_of(connection: socket.socket) -> trio.SocketStream:
    """Return the stream of a connection, which it owns from now on."""
    return trio.SocketStream(trio.socket.from_stdlib_socket(connection))


def connect_at_once(path: Path) -> socket.socket:
    """Connect, or raise `OSError`, in this thread, which waits for the disk only."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


async def is_served(path: Path, thread: WorkerThread) -> bool:
    """Return whether a process listens at `path`, also if that cannot be found out in time.

    A stopped server leaves its socket file behind.
    """
    return await thread.run_or(partial(_is_served, path), otherwise=True)


def _is_served(path: Path) -> bool:
    try:
        connect_at_once(path).close()
    except BlockingIOError:  # its queue is full: a server that is stopped, or slow
        return True
    except OSError:
        return False
    return True


def is_abandoned(path: Path) -> bool:
    """Return whether `path` is the socket of a server that has ended. Blocks for its disk only."""
    try:
        connect_at_once(path).close()
    except ConnectionRefusedError:
        return path.is_socket()  # a regular file gives the same error
    except OSError:
        return False
    return False


async def listen(
    path: Path, thread: WorkerThread, before: Callable[[], object] = lambda: None
) -> "UnixListener":
    """Return a listener whose file `thread` creates, after a call of `before`, and removes.

    Raises `OSError` and `NoThread`. A later listener at `path` needs the same thread: then no late removal
    hits the new file.
    """

    def make() -> UnixListener:
        before()
        return UnixListener(path, thread)

    with trio.move_on_after(PATIENCE):
        return await thread.acquire(make, UnixListener.close)
    text = f"creating it takes more than {PATIENCE:g} s, as when a disk hangs"
    raise TimeoutError(errno.ETIMEDOUT, text, str(path))


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a socket file that only its owner may open; removes the file when closed.

    A connection from a peer that is neither root nor our own user is closed at once and logged.
    """

    def __init__(self, path: Path, thread: WorkerThread | None = None) -> None:
        """Bind; replaces a file at `path`. Blocks: on the event loop, use `listen`. Raises `OSError`."""
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            path.chmod(0o600)  # before listen(): no peer can have connected
            identity = FileIdentity.of(path)
            if identity is None:
                raise FileNotFoundError(errno.ENOENT, "the socket was deleted at once", str(path))
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        self.path = path
        self.identity = identity
        self._socket = sock
        self._thread = thread or WorkerThread()
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))

    async def accept(self) -> trio.SocketStream:
        """Return the next connection of a peer that may connect."""
        while True:
            stream = await self._listener.accept()
            uid = peer_uid(stream)
            if uid in (0, os.getuid()):
                return stream
            text = f"refused a connection to {self.path.name} from user id {uid}"
            if uid == _OVERFLOW_UID and in_user_namespace():
                text += ", as a user namespace shows the host's root: remove hostUsers: false from the pod"
            say("peer_refused", text, WARNING, socket=self.path.name, uid=uid)
            await trio.aclose_forcefully(stream)

    async def aclose(self) -> None:
        """Stop listening, and remove the file unless another has replaced it.

        Waits for the disk, at most `GOODBYE`; a file that stays behind is removed by the next daemon.
        """
        try:
            with trio.move_on_after(GOODBYE, shield=True), contextlib.suppress(NoThread):
                await self._thread.run(self._remove)
        finally:
            await self._listener.aclose()

    def close(self) -> None:
        """Do the same for a listener that no task has used. Blocks."""
        self._remove()
        self._socket.close()

    def _remove(self) -> None:
        if FileIdentity.of(self.path) == self.identity:
            with contextlib.suppress(OSError):  # already gone, or its directory is
                self.path.unlink()


def in_user_namespace() -> bool:
    """Whether user ids of this process are not the host's, as in a pod with `hostUsers: false`."""
    try:
        mapped = _UID_MAP.read_text().split()  # the kernel's own data: no disk is behind it
    except OSError:
        return False
    return mapped != _ALL_IDS


def peer_uid(stream: trio.SocketStream) -> int:
    """Return the peer's user id, as the kernel recorded it at connect()."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(raw)
    return int(uid)
