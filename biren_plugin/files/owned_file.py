"""The node's CDI file, and whether this daemon may write it. Blocking.

1. If there was no file before, the file is ours. An existing file is kept as long as it exists, unless
   it may be overwritten.
2. A file with the text that we wrote last is ours, whatever its mtime and inode; so is one with the text
   of a write that failed, since the new file may be there all the same.
3. A file with the right content is adopted, not written again.
4. A file that cannot be read now is taken for absent, but a file that then shows is not replaced unseen.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from biren_plugin.core.cdi.findings import CdiFile, Finding, findings_of
from biren_plugin.core.cdi.spec import Spec, spec_for
from biren_plugin.core.model import DeviceList
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid
from biren_plugin.files import cdi_file
from biren_plugin.notice import say
from biren_plugin.unix_sockets import FileIdentity


class OwnedFile:
    """The file at `path`, and the other files that runtimes read on the host below `host_root`.

    For one thread at a time. With `overwrite`, a file that existed before is ours too.
    """

    def __init__(self, path: Path, *, overwrite: bool, host_root: Path = Path("/")) -> None:
        self._path = path
        self._overwrite = overwrite
        self._host_root = host_root
        self._was_read = False
        self._known: FileIdentity | None = None
        self._ours = True
        self._texts: tuple[str, ...] = ()
        """The text that we wrote last, and that of a write that failed since."""
        self._spec: Spec | None = None
        """The content of the known file; None if no runtime would load it."""
        self._fault = ""
        """Why no runtime would load it."""
        self._may_pass = False
        """Whether the file could not be read, a fault that may pass by itself."""
        self._others: dict[Path, tuple[FileIdentity, CdiFile]] = {}

    def get_ready(self) -> None:
        """Read the file, if needed; the first read also imports the YAML library, and reads the others."""
        if not self._was_read:
            cdi_file.remove_leftover(self._path)
            self._read_others()
        found = FileIdentity.of(self._path)
        if found != self._known or not self._was_read:
            self._ours = found is None or self._overwrite or self._holds_our_text()
            self._read()
        elif self._may_pass:
            self._read()
        self._was_read = True

    def keep(
        self, lists: Sequence[DeviceList], may_replace: Callable[[], bool]
    ) -> tuple[Spec | None, tuple[Finding, ...]]:
        """Write `lists` to the file if allowed; return what it then holds, and what is wrong with it.

        `may_replace` is asked in the last moment, when the new text is on the disk.
        """
        self.get_ready()
        needed = spec_for(lists)
        failure: CdiFileUnusable | None = None
        if self._ours and (self._fault or self._spec != needed):
            try:
                self._put(needed, lambda: may_replace() and self._is_as_known())
            except CdiFileUnusable as error:
                self.get_ready()  # the new file may be there all the same
                failure = error
        own = CdiFile(str(self._path), self._spec, self._fault, cure=cdi_file.cure_for(self._path))
        findings = findings_of(own, needed, self._read_others())
        if failure is None:
            return self._spec, findings
        # The failed write is the cause of what the file lacks.
        names = frozenset(name for finding in findings for name in finding.names)
        return self._spec, (Finding(str(failure), "", names),)

    def _holds_our_text(self) -> bool:
        return any(cdi_file.holds_text(self._path, each) for each in self._texts)

    def _is_as_known(self) -> bool:
        return self._overwrite or FileIdentity.of(self._path) == self._known

    def _read(self) -> None:
        self._known = FileIdentity.of(self._path)
        self._spec, self._fault, self._may_pass = None, "", False
        try:
            self._spec = cdi_file.load(self._path)
        except CdiFileUnusable as error:
            self._fault = str(error)
            self._may_pass = not isinstance(error, CdiSpecInvalid)

    def _put(self, needed: Spec | None, may_replace: Callable[[], bool]) -> None:
        if needed is None:
            cdi_file.remove(self._path, may_replace)
            self._texts = ()
            text = f"{self._path} removed: the node has no card for it"
            say("cdi_removed", text, path=str(self._path))
        else:
            new = cdi_file.render(needed, "yaml")
            self._texts = (*self._texts[:1], new)
            cdi_file.write(self._path, new, may_replace)
            self._texts = (new,)
            text = f"{self._path} written: {len(needed['devices'])} devices"
            say("cdi_written", text, path=str(self._path))
        self._known = FileIdentity.of(self._path)
        self._spec, self._fault, self._may_pass = needed, "", False

    def _read_others(self) -> list[CdiFile]:
        """Return the other files that runtimes read; only changed files are read again."""
        found: dict[Path, tuple[FileIdentity, CdiFile]] = {}
        for path in cdi_file.other_files(self._host_root, self._path):
            identity = FileIdentity.of(path)
            if identity is None:
                continue
            before = self._others.get(path)
            same = before is not None and before[0] == identity
            found[path] = before if before is not None and same else (identity, cdi_file.read(path))
        self._others = found
        return [file for _identity, file in found.values()]
