"""The wheel and the sdist build, install with the newest pip, and run without the repository."""

import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from biren_plugin import __version__

pytestmark = pytest.mark.time_limit(600)  # dependencies are downloaded

ROOT = Path(__file__).parents[2]
HOST = ROOT / "tests/hosts/eight_whole"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_each_artefact_installs_and_runs(artefacts: Path, tmp_path: Path, pattern: str) -> None:
    [artefact] = artefacts.glob(pattern)
    venv.create(tmp_path / "venv", with_pip=True)
    pip: list[str | Path] = [tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet"]
    run(*pip, "--upgrade", "pip", cwd=tmp_path)
    run(*pip, artefact, cwd=tmp_path)
    command = tmp_path / "venv/bin/br-gpu-device-plugin"
    assert run(command, "--version", cwd=tmp_path) == f"br-gpu-device-plugin {__version__}\n"
    installed = run(*pip[:3], "show", "br-gpu-device-plugin", cwd=tmp_path)
    assert f"Version: {__version__}\n" in installed
    assert "card_0" in run(command, "devices", "--host-root", HOST, cwd=tmp_path)


def test_the_sdist_has_no_links(artefacts: Path) -> None:
    """A link out of the archive is refused by newer versions of Python and pip."""
    [sdist] = artefacts.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert [member.name for member in archive if not (member.isfile() or member.isdir())] == []


def test_description_has_no_link_into_the_repository(artefacts: Path) -> None:
    """An index shows the description without the files beside it."""
    [sdist] = artefacts.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        info = archive.extractfile(f"br_gpu_device_plugin-{__version__}/PKG-INFO")
        assert info is not None
        description = info.read().decode().partition("\n\n")[2]
    assert description
    assert "](" not in description.replace("](https://", "")
