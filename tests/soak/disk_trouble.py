"""What happens to the directory of the CDI file: its disk is full."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path


class DiskTrouble:
    """The CDI file's directory as a small file system of its own; needs root."""

    def __init__(self, folder: Path) -> None:
        """Mounts it, or raises `CalledProcessError`."""
        self.path = folder / "cdi"
        self.path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(self.path)]
        subprocess.run(mount, check=True, capture_output=True)
        self._ballast = self.path / "ballast"
        self.kinds: Sequence[Callable[[], None]] = (self.disk_fills_up, self.disk_has_room)

    @property
    def flags(self) -> tuple[str, ...]:
        """The daemon's, so that it writes there."""
        return ("--cdi-feature", "--overwrite-cdi-config", f"--cdi-dir={self.path}")

    def disk_fills_up(self) -> None:
        """Fill the disk: cards that the file does not have yet are Unhealthy."""
        free = os.statvfs(self.path)
        with self._ballast.open("ab") as file:
            file.write(bytes(free.f_bavail * free.f_frsize))

    def disk_has_room(self) -> None:
        """There is room again."""
        self._ballast.unlink(missing_ok=True)

    def rest(self) -> None:
        """Make room: the kubelet's view then does not depend on the disk."""
        self.disk_has_room()

    def calm(self) -> None:
        """The same."""
        self.disk_has_room()

    def close(self) -> None:
        """Unmounts it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
