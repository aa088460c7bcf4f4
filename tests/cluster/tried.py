"""Writes rows of docs/tried.md: how many tests of each module passed, and with which versions.

`nox -s cluster -- --write-tried` writes the numbers and versions; `tests/docs` compares the rows with the
existing modules.
"""

import fcntl
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parents[2] / "docs/tried.md"
_SESSION: Final = re.compile(r"(?<=`nox -s cluster`: ).*(?= \|$)", re.M)
_COUNT: Final = re.compile(r"(\d+) of `(\w+)`")
_VERSIONS: Final = re.compile(r"(?<=The session was last recorded with ).*?(?=\.\n)", re.S)
_ASKED: Final = {
    "kubelet": ("kubelet", "--version"),
    "etcd": ("etcd", "--version"),
    "containerd": ("containerd", "--version"),
    "runc": ("runc", "--version"),
    "Prometheus": ("prometheus", "--version"),
}
_NUMBER: Final = re.compile(r"\d+\.\d+\.\d+")


def modules(text: str) -> list[str]:
    """The modules that the table's rows name, in the order of the rows."""
    return [name for cell in _SESSION.findall(text) for _, name in _COUNT.findall(cell)]


def with_counts(text: str, passed: Mapping[str, int]) -> str:
    """The table with the number of passed tests of each module; other numbers stay."""

    def counted(match: re.Match[str]) -> str:
        return f"{passed.get(match[2], int(match[1]))} of `{match[2]}`"

    return _SESSION.sub(lambda cell: _COUNT.sub(counted, cell[0]), text)


def write(passed: Mapping[str, int]) -> None:
    """Writes the numbers and the versions. The session of each node calls it."""
    with TABLE.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = with_counts(file.read(), passed)
        text = _VERSIONS.sub(versions(), text)
        file.seek(0)
        file.truncate()
        file.write(text)


def versions() -> str:
    """The versions of the installed programs: `kubelet 1.36.2, ...`."""
    found = []
    for name, command in _ASKED.items():
        if shutil.which(command[0]) is not None:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            number = _NUMBER.search(done.stdout + done.stderr)
            found.append(f"{name} {number[0] if number else '?'}")
    return ", ".join(found)
