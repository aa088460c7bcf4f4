"""Where the real tools are, and running them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NoReturn

import pytest

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "manifests"
FETCHED: Final = ROOT / ".nox" / "deploy-tools"
"""What `python -m tests.manifests.fetch` makes: `bin/` and `schemas/`."""


def find_tool(name: str) -> str:
    """The path of a tool, of those fetched first; without it the test is skipped or fails."""
    search = os.pathsep.join([str(FETCHED / "bin"), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=search)
    if found is None:
        missing(name)
    return found


def missing(what: str) -> NoReturn:
    """Ends the test that needs `what`."""
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(f"{what} is not here, and REQUIRE_TOOLS=1 says that it must be")
    pytest.skip(f"{what} is not here")


def run_tool(name: str, *words: str, timeout: float = 60.0) -> str:
    """What a tool prints on standard output; an AssertionError with all that it said if it fails."""
    done = try_tool(name, *words, timeout=timeout)
    assert done.returncode == 0, f"{name} {' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def try_tool(name: str, *words: str, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """A tool run to its end, whatever that is."""
    return subprocess.run(
        [find_tool(name), *words], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
