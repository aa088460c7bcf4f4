"""The driver's two sockets: their names, which differ between instances, and stale sockets.

Blocking. A Unix socket's path has at most 107 bytes. Source: `k8s.io/dynamic-resource-allocation` of 1.37,
whose helper shortens names in the same two ways.
"""

import hashlib
import os
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import Final

from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.errors import SocketUnusable
from biren_plugin.records import frozen
from biren_plugin.unix_sockets import is_abandoned

LONGEST_PATH: Final = 107
"""Bytes of `sun_path`, without the final 0."""


@frozen
class DriverSockets:
    """The paths on which one instance serves."""

    plugin: Path
    """`<kubelet root>/plugins/gpu.birentech.com/dra-<instance>.sock`."""
    registration: Path
    """`<kubelet root>/plugins_registry/gpu.birentech.com-<instance>-reg.sock`."""

    @property
    def lock(self) -> Path:
        """Return the lock file that keeps two instances apart while they write claims."""
        return self.plugin.with_name("claims.lock")


def sockets_of(kubelet_root: Path, instance: str) -> DriverSockets:
    """Return the sockets of the instance with that pod uid, or any other text. Raises `SocketUnusable`."""
    digest = hashlib.sha256(instance.encode()).digest()
    short = urlsafe_b64encode(digest[:8]).decode().rstrip("=")
    whole = hashlib.sha256(f"{DRA_DRIVER}\0{instance}".encode()).digest()
    shortest = urlsafe_b64encode(whole[:16]).decode().rstrip("=")
    plugins = kubelet_root / "plugins" / DRA_DRIVER
    registry = kubelet_root / "plugins_registry"
    return DriverSockets(
        plugin=_first_that_fits(
            plugins / f"dra-{instance}.sock", plugins / f"dra-{short}.sock",
        ),
        registration=_first_that_fits(
            registry / f"{DRA_DRIVER}-{instance}-reg.sock",
            registry / f"{DRA_DRIVER}-{short}-reg.sock",
            registry / f"dra-{shortest}-reg.sock",
        ),
    )  # fmt: skip


def _first_that_fits(*paths: Path) -> Path:
    for path in paths:
        if len(os.fsencode(path)) <= LONGEST_PATH:
            return path
    raise SocketUnusable(
        f"{paths[-1]} is longer than the {LONGEST_PATH} bytes of a socket's path; "
        "give a shorter --kubelet-root"
    )


def remove_stale(sockets: DriverSockets) -> list[Path]:
    """Remove sockets of this driver that no process serves, left by a killed instance.

    Sockets with the shortest names stay, since the names do not show their owner.
    """
    removed = []
    for directory, pattern in (
        (sockets.registration.parent, f"{DRA_DRIVER}-*reg.sock"),
        (sockets.plugin.parent, "dra-*.sock"),
    ):
        for path in sorted(directory.glob(pattern)):
            if is_abandoned(path):
                with suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed
