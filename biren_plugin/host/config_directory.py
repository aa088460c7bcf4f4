"""Which settings file of `--config-dir` is a node's: `NODE.yaml`, else `default.yaml`."""

import os
from pathlib import Path
from typing import Final

DEFAULT_FILE: Final = "default.yaml"


def settings_file_of(folder: Path, node: str) -> Path:
    """Return the node's own file if there is one, else the path of the default file. Blocks.

    An empty `node` stands for the host name. Raises `OSError` for a directory that cannot be read.
    """
    own = own_file_of(folder, node)
    return own if own.name in os.listdir(folder) else folder / DEFAULT_FILE


def own_file_of(folder: Path, node: str) -> Path:
    """Return the path of the node's own file, whether it is there or not."""
    return folder / f"{node or os.uname().nodename}.yaml"
