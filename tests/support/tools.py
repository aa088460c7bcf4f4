"""Real tools that some tests run: skipped where one is missing, unless CI says that none may be."""

import os
import shutil

import pytest


def need(tool: str, package: str) -> str:
    """The tool's path. Skips the test where it is missing; with REQUIRE_TOOLS=1 that is a failure."""
    path = shutil.which(tool)
    if path is None:
        if os.environ.get("REQUIRE_TOOLS") == "1":
            pytest.fail(f"{tool} is missing: apt-get install {package}")
        pytest.skip(f"{tool} is not installed (Debian: {package})")
    return path
