"""Records a host's files in an archive, so that the daemon can read the copy as it reads the host.

Only the requested paths and the links on the way to them are recorded; a device node becomes a link to
/dev/null, which is a character device on every machine. All sizes are bounded: a report travels by mail.
"""

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Final

from biren_plugin.host.host_paths import under, walk

_MAX_FILE: Final = 65_536
_MAX_ENTRIES: Final = 20_000
_MAX_BYTES: Final = 16 * 1024**2


class Recorder:
    """Adds files below the host's `root` to `archive`, under the directory `name`."""

    def __init__(self, root: Path, archive: tarfile.TarFile, name: str) -> None:
        self._root = root
        self._archive = archive
        self._name = name
        self._added: set[str] = set()
        self._bytes = 0
        self.full = False
        """Whether a limit made something be left out."""

    def add(self, path: str) -> None:
        """Add the file, directory (without its content) or node at the host's `path`, and links to it.

        Missing and unreadable files are left out: the copy lacks them too.
        """
        try:
            for here, target in walk(self._root, path):
                # The nodes of a recorded or simulated host are links to /dev/null.
                if target == os.devnull:
                    self._add_link(here, target)
                    return
                if target is not None:
                    self._add_link(here, target)
                    continue
                mode = os.lstat(under(self._root, here)).st_mode
                if stat.S_ISCHR(mode):
                    self._add_link(here, os.devnull)
                elif stat.S_ISREG(mode):
                    self._add_file(here)
                elif stat.S_ISDIR(mode):
                    self._add_entry(here, tarfile.DIRTYPE)
        except OSError:
            return

    def add_text(self, name: str, text: str) -> None:
        """Add a file of the report itself."""
        self._write(tarfile.TarInfo(name), text.encode())

    def _add_link(self, path: str, target: str) -> None:
        # A link to an absolute path leads out of the copy; only this package's readers resolve it there.
        self._add_entry(path, tarfile.SYMTYPE, target)

    def _add_file(self, path: str) -> None:
        descriptor = os.open(under(self._root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._add_entry(path, tarfile.REGTYPE, content=os.read(descriptor, _MAX_FILE))
        finally:
            os.close(descriptor)

    def _add_entry(self, path: str, kind: bytes, target: str = "", content: bytes = b"") -> None:
        if path in self._added:
            return
        if len(self._added) >= _MAX_ENTRIES or self._bytes + len(content) > _MAX_BYTES:
            self.full = True
            return
        self._added.add(path)
        self._bytes += len(content)
        entry = tarfile.TarInfo(self._name + path)
        entry.type = kind
        entry.linkname = target
        entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        self._write(entry, content)

    def _write(self, entry: tarfile.TarInfo, content: bytes) -> None:
        entry.size = len(content)
        self._archive.addfile(entry, io.BytesIO(content))
