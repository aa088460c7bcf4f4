"""Writes and removes the CDI files of claims: one for each prepared claim, named by its uid. Blocking.

1. The files are all that is remembered of claims: they are shared by two instances, and lie on a
   tmpfs, so that a reboot forgets them as it ends the containers.
2. A file is written whole or not at all.
3. `in_turn` keeps two instances apart while one compares the files and writes.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.core.observed import ClaimFile
from biren_plugin.core.parse.vendor import CLAIM_FILE_PREFIX
from biren_plugin.errors import CdiFileUnusable, ClaimFileUnusable, why_unwritable
from biren_plugin.files import cdi_file
from biren_plugin.files.claim_reading import content_of, read_claim_file, read_claim_files

_UID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_TRY_AGAIN: Final = 0.01
"""Seconds between tries for the lock, which is held for milliseconds."""


class ClaimFiles:
    """The files in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path_of(self, uid: str) -> Path:
        """Return the path of the claim's file. Raises `ClaimFileUnusable` for an invalid uid."""
        if _UID.fullmatch(uid) is None:
            raise ClaimFileUnusable(f"{uid[:80]!r} is not the uid of a claim")
        return self._directory / f"{CLAIM_FILE_PREFIX}{uid}.json"

    def read_all(self) -> dict[str, ClaimFile]:
        """What is in the files, by uid. Raises `ClaimFileUnusable`."""
        return read_claim_files(self._directory)

    def write(self, uid: str, spec: Spec) -> ClaimFile:
        """Make the claim's file hold `spec`, and return it. Raises `ClaimFileUnusable`."""
        path = self.path_of(uid)
        # With an indent, Python's own encoder takes six times as long.
        text = json.dumps(spec) + "\n"
        try:
            status = cdi_file.write(path, text, flag="--claim-cdi-dir")
        except CdiFileUnusable as error:
            raise ClaimFileUnusable(str(error)) from error
        return content_of(spec, status)

    def remove_if(self, uid: str, seen: ClaimFile) -> bool:
        """Removes the claim's file if it is still as `seen`. Raises `ClaimFileUnusable`."""
        if read_claim_file(self.path_of(uid)) != seen:
            return False
        self.remove(uid)
        return True

    def remove(self, uid: str) -> None:
        """Remove the claim's file, if there is one. Raises `ClaimFileUnusable`."""
        path = self.path_of(uid)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            text = why_unwritable(path, error, "--claim-cdi-dir", "remove")
            raise ClaimFileUnusable(text) from error


@contextmanager
def in_turn(lock: Path, deadline: float) -> Iterator[None]:
    """Holds the lock of both instances, which is a file. Raises `ClaimFileUnusable` after `deadline` seconds."""
    with _opened(lock) as descriptor:
        until = time.monotonic() + deadline
        while not _locks(descriptor, lock):
            if time.monotonic() >= until:
                raise ClaimFileUnusable(
                    f"another instance has held {lock} for {deadline:g} s: end it if it hangs"
                )
            time.sleep(_TRY_AGAIN)
        yield


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ClaimFileUnusable(why_unwritable(lock, error, "--kubelet-root")) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int, lock: Path) -> bool:
    """Return whether the lock was free, and is now held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ClaimFileUnusable(why_unwritable(lock, error, "--kubelet-root", "lock")) from error
    return True
