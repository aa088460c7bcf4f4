"""`python -m tests.manifests.image_archive`: the image of these sources, as an archive for containerd.

The build needs root, podman, mmdebstrap and package registries, which a test on a node in a network of
its own does not have. The archive's name carries a hash of the sources: a stale one is not found.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.manifests.podman import BASE, Podman
from tests.manifests.tools import FETCHED, ROOT, run_tool

LOCKS: Final = [
    ROOT / "manifests/image" / name for name in ("requirements.txt", "build-requirements.txt")
]
REPOSITORY: Final = "node.local/br-gpu-device-plugin"
_SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", ".containerignore")
_FOLDERS: Final = ("biren_plugin", "schema", "manifests/image")
_BASE_TARBALL: Final = FETCHED / "base.tar"


def archive() -> Path:
    """Where the image of these sources lies once it was built."""
    digest = hashlib.sha256()
    files = [ROOT / name for name in _SOURCES]
    files += [file for name in _FOLDERS for file in sorted((ROOT / name).rglob("*.*"))]
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return FETCHED / f"image-{digest.hexdigest()[:16]}.tar"


@contextmanager
def build_lock() -> Iterator[None]:
    """Hold a lock that whoever builds holds, and then whoever waits for the image."""
    FETCHED.mkdir(parents=True, exist_ok=True)
    with (FETCHED / "image.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_context(folder: Path) -> None:
    """Fills `folder` with what a build sees: the repository's files, and the locked wheels."""
    for name in _SOURCES:
        shutil.copy(ROOT / name, folder)
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    wheels = [word for lock in LOCKS for word in ("--requirement", str(lock))]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    # The base's Python is 3.11, whichever runs the tests.
    target = ["--python-version=3.11", "--only-binary=:all:", "--dest", str(folder / "wheelhouse")]
    subprocess.run([*command, *target, *wheels], check=True, timeout=120)


def import_base(podman: Podman) -> None:
    """Gives podman the base: Debian with Python and nothing else, kept for the next run."""
    if not _BASE_TARBALL.exists():
        _BASE_TARBALL.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _BASE_TARBALL.with_suffix(".unfinished.tar")
        run_tool(
            "mmdebstrap", "--quiet", "--variant=essential", "--include=python3-venv",
            "bookworm", str(unfinished), timeout=300.0,
        )  # fmt: skip
        unfinished.rename(_BASE_TARBALL)
    podman("import", "--quiet", str(_BASE_TARBALL), BASE, timeout=120.0)


def main() -> None:
    """Builds the archive unless it is there; older ones go."""
    target = archive()
    lacking = [name for name in ("podman", "runc", "mmdebstrap") if shutil.which(name) is None]
    if target.exists() or lacking:
        print(f"image: {'built already' if target.exists() else 'no ' + ', '.join(lacking)}")
        return
    for old in FETCHED.glob("image-*.tar"):
        old.unlink()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        context, storage = Path(scratch) / "context", Path(scratch) / "podman"
        context.mkdir()
        write_context(context)
        podman = Podman(storage)
        import_base(podman)
        podman.build(f"{REPOSITORY}:test", context)
        unfinished = target.with_suffix(".unfinished")
        podman(
            "save", "--quiet", "--format=docker-archive", f"--output={unfinished}",
            f"{REPOSITORY}:test", timeout=120.0,
        )  # fmt: skip
        unfinished.rename(target)
        podman("rmi", "--all", "--force", timeout=300.0)  # on a busy machine


if __name__ == "__main__":
    main()
