"""Unix sockets: the listener, which peers may connect, and the identity of a socket file."""

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path

import trio

from biren_plugin.notice import WARNING, say
from biren_plugin.records import frozen

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
    def of(cls, path: Path) -> "FileIdentity | None":
        """Return the identity of the file at `path`; None if there is no file, or no permission to read it."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_dev, status.st_ino, status.st_mtime_ns)


async def is_served(path: Path) -> bool:
    """Return whether a process listens at `path`; a stopped server leaves its socket file behind."""
    try:
        stream = await trio.open_unix_socket(path)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True


def is_abandoned(path: Path) -> bool:
    """Return whether `path` is the socket of a server that has ended. Does not block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as ours:
        try:
            ours.connect(str(path))
        except ConnectionRefusedError:
            return path.is_socket()  # a regular file gives the same error
        except OSError:
            return False
    return False


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a socket file that only its owner may open; removes the file when closed.

    A connection from a peer that is neither root nor our own user is closed at once and logged.
    """

    def __init__(self, path: Path) -> None:
        """Bind; replaces a file at `path`. Raises `OSError`."""
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
        """Stop listening, and remove the file unless another has replaced it."""
        if FileIdentity.of(self.path) == self.identity:
            with contextlib.suppress(OSError):  # already gone, or its directory is
                self.path.unlink()
        await self._listener.aclose()


def in_user_namespace() -> bool:
    """Whether user ids of this process are not the host's, as in a pod with `hostUsers: false`."""
    try:
        mapped = _UID_MAP.read_text().split()
    except OSError:
        return False
    return mapped != _ALL_IDS


def peer_uid(stream: trio.SocketStream) -> int:
    """Return the peer's user id, as the kernel recorded it at connect()."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(raw)
    return int(uid)
