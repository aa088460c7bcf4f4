"""Paths of the host, seen from a process for which the host's root may be any directory."""

import errno
import os
import stat
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from biren_plugin.core.parse.card import NodeState
from biren_plugin.errors import HostUnreadable, reason_of

NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""The kernel's errors for a path that leads nowhere; no other error shows that the path is missing."""
_MAX_LINKS: Final = 40  # as many as Linux follows


def under(root: Path, path: str) -> Path:
    """Return where this process finds the host's `path`. `root` is `/` on the host itself."""
    return root / path.lstrip("/")


def require_root(root: Path) -> None:
    """Raises `HostUnreadable` if there is no host root: `--host-root` is wrong, or not mounted."""
    if why := why_no_directory(root):
        raise HostUnreadable(f"{why}; see --host-root")


def why_no_directory(path: Path) -> str:
    """Return what is wrong with a path that has to lead to a directory; empty if it does. Blocks."""
    try:
        mode = path.stat().st_mode
    except OSError as error:  # a path that is too long or not permitted among them
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return f"there is no directory {path}"
        return f"cannot read {path}: {reason_of(error)}"
    return "" if stat.S_ISDIR(mode) else f"{path} is not a directory"


def node_state(root: Path, path: str) -> NodeState:
    """Return the state of the device node at an absolute path, with links followed. Never raises."""
    return find_node(root, path)[0]


def find_node(root: Path, path: str) -> tuple[NodeState, str | None]:
    """Return the state as `node_state` does, and the node's real path on the host if `path` is a link.

    Of a link that leads nowhere: the missing path.
    """
    mode = _mode(os.lstat, f"{root}{path}")  # not `under`: each card is read each second
    if mode is None or not stat.S_ISLNK(mode):
        return _state(mode), None
    real = resolve(root, path)  # an absolute link of the host begins at its root, not at ours
    state = _state(_mode(os.stat, f"{root}{real or path}"))
    return state, dangling(root, path) if state is NodeState.MISSING else real


def _mode(look: Callable[[str], os.stat_result], path: str) -> int | None:
    """Return the file's mode, 0 where nothing is, None if that is unknown."""
    try:
        return look(path).st_mode
    except OSError as error:
        return 0 if error.errno in NOT_THERE else None


def _state(mode: int | None) -> NodeState:
    if mode is None:
        return NodeState.UNKNOWN
    if mode == 0:
        return NodeState.MISSING
    return NodeState.CHARACTER_DEVICE if stat.S_ISCHR(mode) else NodeState.OTHER


def walk(root: Path, path: str) -> Generator[tuple[str, str | None], None, str]:
    """Yield each component of `path` with its link target, resolving links below the host root.

    Returns the real path. An absolute link of the host points below `root`, which `os.path.realpath`
    cannot know. Raises `OSError` with the missing path of the host if the path leads nowhere.
    """
    base = str(root).rstrip("/")  # a string costs less than a Path
    todo = _parts(path)
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        here = "/" + "/".join([*done, part])
        try:
            target = os.readlink(f"{base}{here}")
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: it exists, and is not a link
                wanted = "/" + "/".join([*done, part, *reversed(todo)])
                raise OSError(error.errno, error.strerror, wanted) from error
            yield here, None
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
        yield here, target
        if target.startswith("/"):
            done = []
        todo.extend(_parts(target))
    return "/" + "/".join(done)


def why_unreadable(root: Path, path: str) -> str | None:
    """Return the system's reason why `path` cannot be followed; None if it can, or if it leads nowhere."""
    try:
        for _ in walk(root, path):
            pass
    except OSError as error:
        return None if error.errno in NOT_THERE else f"{error.filename}: {reason_of(error)}"
    return None


def dangling(root: Path, path: str) -> str | None:
    """Return the missing path that the links along `path` lead to; None if no link is the cause.

    Of links that lead in a circle: `path` itself.
    """
    try:
        for _ in walk(root, path):
            pass
    except OSError as error:
        if error.errno == errno.ELOOP:
            return path
        if error.errno in NOT_THERE and error.filename != path:
            return str(error.filename)
    return None


def _parts(path: str) -> list[str]:
    """Return the names along a path, the last name first; `//` is one slash, as for the kernel."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def resolve(root: Path, path: str) -> str | None:
    """Return the host's real path of `path`, following links as the host does; None if it leads nowhere."""
    steps = walk(root, path)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return str(end.value)
    except OSError:
        return None
