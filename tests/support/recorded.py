"""The recorded hosts of tests/hosts, for reading where they are and for changing in a copy."""

import shutil
from pathlib import Path
from typing import Final

HOSTS: Final = Path(__file__).parents[1] / "hosts"


def copy_host(name: str, to: Path) -> Path:
    """Copies the host `name` to `to`, which must not exist, links kept; its root."""
    return shutil.copytree(HOSTS / name, to, symlinks=True, dirs_exist_ok=True)
