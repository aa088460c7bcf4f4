"""Reads the CDI files of claims, which hold cards whichever way the node offers its own. Blocking.

A file that cannot be read harms its own claim only. A file without a device of ours holds nothing.
"""

import json
import os
import re
from pathlib import Path
from typing import Final

from biren_plugin.core.cdi.spec import MAX_SIZE
from biren_plugin.core.observed import ClaimFile
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.core.parse.vendor import CLAIM_FILE_PREFIX
from biren_plugin.errors import ClaimFileUnusable

_NAME: Final = re.compile(re.escape(CLAIM_FILE_PREFIX) + r"([0-9A-Za-z-]{1,64})\.json")


def read_claim_files(directory: Path) -> dict[str, ClaimFile]:
    """Return what is in the files of `directory`, by the claim's uid. Raises `ClaimFileUnusable`."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ClaimFileUnusable(
            f"cannot read {directory}: {error.strerror}; see --claim-cdi-dir"
        ) from error
    matches = (match for name in sorted(names) if (match := _NAME.fullmatch(name)))
    found = {match[1]: read_claim_file(directory / match[0]) for match in matches}
    return {uid: file for uid, file in found.items() if file is not None}


def claim_file_names(directory: Path) -> frozenset[str]:
    """Return the names of the claims' files; none of a directory that cannot be read."""
    try:
        return frozenset(name for name in os.listdir(directory) if _NAME.fullmatch(name))
    except OSError:
        return frozenset()


def read_claim_file(path: Path) -> ClaimFile | None:
    """Return what is in a claim's file; None: it has just gone."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            # To read MAX_SIZE is to allocate it, each time.
            content = file.read(min(status.st_size, MAX_SIZE))
    except FileNotFoundError:
        return None
    except OSError:
        return ClaimFile((), (0, 0))
    try:
        spec = json.loads(content)
    except (ValueError, RecursionError):
        spec = None
    return content_of(spec, status)


def content_of(spec: object, status: os.stat_result) -> ClaimFile:
    """Return what a claim's file holds: its parsed content, and the file's status."""
    return ClaimFile(_devices_in(spec), (status.st_ino, status.st_mtime_ns))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO in a file's place would hold up everything


def _devices_in(spec: object) -> tuple[ClaimDevice, ...]:
    """The devices in a claim's CDI spec; what is not ours is left out."""
    found = spec.get("devices") if isinstance(spec, dict) else None
    entries = found if isinstance(found, list) else []
    names = [each.get("name") for each in entries if isinstance(each, dict)]
    parsed = [ClaimDevice.parse(name) for name in names if isinstance(name, str)]
    return tuple(each for each in parsed if each is not None)
