"""A node in this process, on a clock that runs five times as fast: see `tests.support.node_in_process`."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.support.node_in_process import NodeInProcess


@pytest.fixture
def fast_clock() -> MockClock:
    """Return the daemon's clock. Ten of its seconds, the limit for a client's first message, are two real ones."""
    return MockClock(rate=5)


@pytest.fixture
def node(short_path: Path) -> NodeInProcess:
    """Return a node without cards and without a daemon."""
    return NodeInProcess(short_path)
