"""What of the host is mounted into a container, from `/proc/self/mountinfo` (proc_pid_mountinfo(5))."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

_ESCAPE = re.compile(r"\\([0-7]{3})")


def mount_types(mountinfo: str) -> dict[str, str]:
    """The type of the file system by mount point; of several over each other the last."""
    types = {}
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) > 4:
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
            types[point] = after.split(" ")[0]
    return types


def type_at(path: str, types: Mapping[str, str]) -> str | None:
    """The type of what is mounted at `path` or above it; None if that is only the root."""
    for each in (PurePosixPath(path), *PurePosixPath(path).parents):
        if f"{each}" != "/" and f"{each}" in types:
            return types[f"{each}"]
    return None
