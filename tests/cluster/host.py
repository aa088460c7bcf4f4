"""A simulated host with real device nodes, at the paths that container runtimes use."""

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from biren_plugin.core.parse import vendor
from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.daemon import DaemonProcess

MAJOR: Final = 195
"""A device number that no driver here serves and that no runtime allows by default."""
CONTROL_MINOR: Final = 255
_NODES: Final = Path("/dev/biren")
_CONTROL: Final = Path("/dev/biren-m")


class NodeHost(SimulatedHost):
    """The tree at `root`; its /dev/biren is also the namespace's /dev/biren until `close`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for control in (_CONTROL, root / "dev/biren-m"):
            control.unlink(missing_ok=True)
            _make_node(control, CONTROL_MINOR)
        subprocess.run(["mount", "--bind", str(root / "dev/biren"), str(_NODES)], check=True)

    def put_node_back(self, name: str) -> None:
        """Creates the card's device node, with the card's number as its minor number."""
        number = int(name.removeprefix(vendor.CARD_PREFIX))
        _make_node(self.root / "dev/biren" / name, number)

    def close(self) -> None:
        """Empties the namespace's /dev/biren."""
        subprocess.run(["umount", "--lazy", str(_NODES)], check=True)
        _CONTROL.unlink(missing_ok=True)


def daemon_on(
    host: NodeHost, *flags: str, environment: Mapping[str, str] | None = None
) -> DaemonProcess:
    """A daemon with default paths except for the host's root; it is not started."""
    usual = (f"--host-root={host.root}", "--log-format=text", "--recover-after=0")
    return DaemonProcess(*usual, *flags, environment=environment)


def _make_node(path: Path, minor: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(MAJOR, minor))
