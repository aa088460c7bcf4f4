"""The contracts in .importlinter break where they should, tried on a copy of the package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIRE = "Only wire knows purerpc, h2, hpack and protobuf"
ROOMS = "Imports point downwards through the rooms"
PURE = "core is pure"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copy(ROOT / ".importlinter", tmp_path)
    shutil.copytree(
        ROOT / "biren_plugin",
        tmp_path / "biren_plugin",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "biren_plugin"


def broken_contracts(package: Path) -> set[str]:
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=package.parent, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    broken = set(re.findall(r"^(.+) BROKEN", checked.stdout, flags=re.MULTILINE))
    assert (checked.returncode == 0) == (not broken), checked.stdout + checked.stderr
    return broken


def add(path: Path, line: str) -> None:
    text = path.read_text() if path.exists() else '"""New."""\n'
    path.write_text(f"{text}\n{line}\n")


def test_the_package_breaks_no_contract(package: Path) -> None:
    assert broken_contracts(package) == set()


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("device_plugin/serving.py", "import purerpc", WIRE),
        ("device_plugin/serving.py", "import google.protobuf", WIRE),
        ("daemon.py", "import google.protobuf.message", WIRE),
        ("daemon.py", "from h2.config import H2Configuration", WIRE),
        ("newcomer.py", "import purerpc", WIRE),
        ("newcomer.py", "import hpack", WIRE),
        ("newcomer.py", "X = 1", ROOMS),
        ("board.py", "import biren_plugin.daemon", ROOMS),
        ("host/host_paths.py", "from biren_plugin.sources import scan", ROOMS),
        ("core/model.py", "from biren_plugin.host import host_paths", ROOMS),
        ("core/model.py", "import trio", PURE),
    ],
)
def test_each_upward_import_breaks_its_contract(
    package: Path, module: str, line: str, contract: str
) -> None:
    add(package / module, line)
    assert contract in broken_contracts(package)
