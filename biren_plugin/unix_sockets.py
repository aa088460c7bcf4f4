"""Unix sockets: who listens, who may connect, and whose file it is."""

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path

import attrs
import trio

from biren_plugin.notice import WARNING, say

_BACKLOG = 32
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: `struct ucred` of Linux
_UID_MAP = Path("/proc/self/uid_map")
_ALL_IDS = ["0", "0", "4294967295"]
_OVERFLOW_UID = 65534
"""What user_namespaces(7) shows for a user id that is not mapped."""


@attrs.frozen
class FileIdentity:
    """Which file it is, whatever it is called: a new one under the same name differs."""

    device: int
    inode: int
    made_ns: int
    """mtime: an inode number is given out again soon. Not ctime, which a chmod or a relabelling moves."""

    @classmethod
    def of(cls, path: Path) -> "FileIdentity | None":
        """The file at `path`, None if there is none (or nothing that may be looked at)."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_dev, status.st_ino, status.st_mtime_ns)


async def is_served(path: Path) -> bool:
    """Whether a process listens at `path`: a stopped server leaves its socket file behind."""
    try:
        stream = await trio.open_unix_socket(path)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True


def is_abandoned(path: Path) -> bool:
    """Whether a socket file is what a server that ended left behind. Does not block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as ours:
        try:
            ours.connect(str(path))
        except ConnectionRefusedError:
            return path.is_socket()  # of a regular file the kernel says the same
        except OSError:
            return False
    return False


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a socket file that only its owner may open; removes the file when closed.

    A peer that is neither root nor of our own user is closed at once, with a line in the log.
    """

    def __init__(self, path: Path) -> None:
        """Binds. Replaces a file at `path`; raises `OSError`."""
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            path.chmod(0o600)  # before listen(): nobody can have connected
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
        """The next connection of a peer that may connect."""
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
        """Stops listening and removes the file, unless another has taken its place."""
        if FileIdentity.of(self.path) == self.identity:
            with contextlib.suppress(OSError):  # gone in between, or the folder with it
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
    """The user id at the other end, as the kernel noted it at connect()."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(raw)
    return int(uid)
