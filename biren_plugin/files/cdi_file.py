"""CDI files on disk: read as runtimes read them, written whole or not at all. Blocking.

1. A file is written under a temporary name, flushed, and renamed: whenever the writer dies, the path
   holds the old file or the new one. The temporary name is always the same, and no runtime reads it; the
   next writer takes over what a killed writer left.
2. A lock on the temporary file keeps two writers apart. It dies with its holder.
3. Only a regular file is replaced. Anything else was put there on purpose.
4. ruamel.yaml is imported where it is used: a daemon without CDI saves its memory.
"""

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

from biren_plugin import __version__
from biren_plugin.core.cdi.findings import REMOVE, REPLACE, CdiFile, read_spec
from biren_plugin.core.cdi.spec import MAX_SIZE, RUNTIME_CDI_DIRS, Spec
from biren_plugin.errors import CdiFileUnusable, CdiSpecInvalid, reason_and_cure, why_unwritable
from biren_plugin.host.host_paths import resolve, under

Format = Literal["yaml", "json"]

_MODE: Final = 0o644
_HEADER: Final = (
    f"# Written by br-gpu-device-plugin {__version__}, which may replace it: see --cdi-feature and\n"
    "# --overwrite-cdi-config.\n"
)


def render(spec: Spec, form: Format) -> str:
    """Return the file's text; YAML begins with a comment that names its writer."""
    if form == "json":
        return json.dumps(spec, indent=2) + "\n"
    text = StringIO()
    yaml = _yaml()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(spec, text)
    return _HEADER + text.getvalue()


def load(path: Path) -> Spec | None:
    """Return the spec in the first document of a file, following links; None if there is no file.

    Raises `CdiFileUnusable`, and `CdiSpecInvalid` if runtimes refuse its content.
    """
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block
            raise CdiFileUnusable(f"{path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise CdiFileUnusable(f"{path} is a symlink that leads nowhere: remove it") from None
        return None
    except OSError as error:
        raise CdiFileUnusable(f"cannot read {path}: {reason_and_cure(error)}") from error
    if len(content) > MAX_SIZE:
        raise CdiSpecInvalid(f"{path} is not a CDI spec: it has more than {MAX_SIZE} bytes")
    try:
        return read_spec(next(_yaml().load_all(content), None))
    except CdiSpecInvalid as error:
        place = _place_of_fault(content)
        raise CdiSpecInvalid(f"{path}{place}: not a valid CDI spec: {error}") from error
    # The last three are ruamel's own slips: on `!!bool x`, `!!int 1x`, and a thousand brackets.
    except (YAMLError, LookupError, ValueError, RecursionError) as error:
        if isinstance(error, MarkedYAMLError):
            place = place_of_error(error)
            raise CdiSpecInvalid(f"{path}{place}: not YAML or JSON: {error.problem}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CdiSpecInvalid(f"{path}: not YAML or JSON: {reason}") from error


def _place_of_fault(content: bytes) -> str:
    """Return where a document breaks a rule, by reading it again with a loader that keeps positions."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        read_spec(next(YAML(typ="rt", pure=True).load_all(content), None))
    except CdiSpecInvalid as error:
        place = getattr(error.found, "lc", None)
        if place is None or place.line is None:
            return ""
        if error.key in (place.data or {}):
            return _place(*place.key(error.key))
        return _place(place.line, place.col)
    except (YAMLError, LookupError, ValueError, RecursionError, AttributeError, TypeError):
        pass  # the loaders accept different input; without a position there is no place to name
    return ""


def place_of_error(error: Any) -> str:
    """Return `, line 2, column 1` of a `MarkedYAMLError` of ruamel; empty if it names no place.

    An unclosed quote and a key without a colon are noticed lines later: their own place counts.
    """
    marks = error.problem_mark, error.context_mark
    if (error.context or "").startswith("while scanning"):
        marks = marks[::-1]
    mark = marks[0] or marks[1]
    return _place(mark.line, mark.column) if mark is not None else ""


def _place(line: int, column: int) -> str:
    return f", line {line + 1}, column {column + 1}"


def read(path: Path) -> CdiFile:
    """Read the file as runtimes do. Never raises."""
    try:
        return CdiFile(str(path), load(path), cure=cure_for(path))
    except CdiFileUnusable as error:
        return CdiFile(str(path), fault=str(error), cure=cure_for(path))


def cure_for(path: Path) -> str:
    """Return what to do about a file with a wrong content, or about what is in its place."""
    try:
        return REPLACE if stat.S_ISREG(path.lstat().st_mode) else REMOVE
    except OSError:  # a new one can be written
        return REPLACE


def holds_text(path: Path, text: str) -> bool:
    """Return whether `path` is a regular file that holds exactly `text`."""
    expected = text.encode()
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(expected) + 1) == expected
    except OSError:
        return False


def other_files(host_root: Path, path: Path) -> list[Path]:
    """Return the CDI files that runtimes read besides `path`: in its directory and in the runtimes' own."""
    real = [resolve(host_root, each) for each in RUNTIME_CDI_DIRS]
    directories = [path.parent, *(under(host_root, each) for each in real if each is not None)]
    files: dict[Path, Path] = {}
    for directory in directories:
        with suppress(OSError):
            for file in sorted(directory.iterdir()):
                if file.suffix in (".yaml", ".json"):
                    files.setdefault(file.resolve(), file)
    files.pop(path.resolve(), None)
    return list(files.values())


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # they are allowed, and a warning would reach our log
    return yaml


def write(
    path: Path,
    text: str,
    may_replace: Callable[[], bool] = lambda: True,
    flag: str = "--cdi-dir",
) -> os.stat_result:
    """Make `path`, which `flag` leads to, hold `text`; return the new file's status.

    A missing directory is created, its parents only if runtimes read it by default: after a typing error
    there would be a tree. Raises `CdiFileUnusable`, also if `may_replace` is false once the new text is on the disk.
    """
    temporary = _temporary_name(path)
    try:
        _is_file(path)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o755, parents=is_usual(path), exist_ok=True)
        with _locked(temporary, os.O_WRONLY | os.O_CREAT) as descriptor:
            try:
                _fill(descriptor, text)
                _check(path, may_replace)
                status = os.fstat(descriptor)
                temporary.replace(path)
            except (OSError, CdiFileUnusable):
                with suppress(OSError):  # the first error is the cause
                    temporary.unlink()
                raise
        _flush_folder(path)
    except OSError as error:
        raise CdiFileUnusable(why_unwritable(path, error, flag)) from error
    return status


def is_usual(path: Path) -> bool:
    """Return whether runtimes read the directory of `path` by default."""
    return str(path.parent) in RUNTIME_CDI_DIRS


def remove(path: Path, may_replace: Callable[[], bool] = lambda: True) -> None:
    """Remove a regular file, if there is one. Raises `CdiFileUnusable`, also if `may_replace` is false."""
    try:
        if _is_file(path):
            _check(path, may_replace)
            path.unlink()
            _flush_folder(path)
    except OSError as error:
        raise CdiFileUnusable(why_unwritable(path, error, "--cdi-dir", "remove")) from error


def _check(path: Path, may_replace: Callable[[], bool]) -> None:
    if not may_replace():
        raise CdiFileUnusable(
            f"{path} was not changed: it belongs to another instance or process by now"
        )


def remove_leftover(path: Path) -> None:
    """Remove the temporary file of a killed writer of `path`, unless a writer is at work."""
    temporary = _temporary_name(path)
    with suppress(OSError), _locked(temporary, os.O_WRONLY):
        temporary.unlink()


def _is_file(path: Path) -> bool:
    """Return whether there is a regular file. Raises `CdiFileUnusable` for anything else, and `OSError`."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode):
        return True
    found = (
        "a symlink" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "not a file"
    )
    raise CdiFileUnusable(
        f"{path} is {found} and was not replaced: remove it, or give another --cdi-dir"
    )


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")  # runtimes read *.yaml and *.json


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """Open and lock the file at `path`. Raises `OSError`, `BlockingIOError` if another process has it."""
    while True:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):  # and not renamed by another writer since it was opened
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _fill(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]
    os.fchmod(descriptor, _MODE)  # whatever the umask
    os.fsync(descriptor)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
