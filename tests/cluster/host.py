"""A simulated host whose device nodes are real ones, at the paths that containers get them from."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Final

from biren_plugin.core.parse import vendor
from biren_plugin.simulate.host import SimulatedHost

MAJOR: Final = 195
"""No driver here answers to it, and no runtime allows it by itself."""
CONTROL_MINOR: Final = 255
_NODES: Final = Path("/dev/biren")
_CONTROL: Final = Path("/dev/biren-m")


class NodeHost(SimulatedHost):
    """The tree at `root`; its /dev/biren is the namespace's too, until `close`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for control in (_CONTROL, root / "dev/biren-m"):
            control.unlink(missing_ok=True)
            _make_node(control, CONTROL_MINOR)
        subprocess.run(["mount", "--bind", str(root / "dev/biren"), str(_NODES)], check=True)

    def put_node_back(self, name: str) -> None:
        """A device node whose minor number is the card's."""
        number = int(name.removeprefix(vendor.CARD_PREFIX))
        _make_node(self.root / "dev/biren" / name, number)

    def close(self) -> None:
        """The namespace's /dev/biren is empty again."""
        subprocess.run(["umount", "--lazy", str(_NODES)], check=True)
        _CONTROL.unlink(missing_ok=True)


def _make_node(path: Path, minor: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(MAJOR, minor))
