"""The kubelet's directory, for every test of the plugins in it."""

from pathlib import Path

import pytest


@pytest.fixture
def path(short_path: Path) -> Path:
    """Return the kubelet's directory, empty."""
    return short_path
