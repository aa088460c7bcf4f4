"""A node whose cards are offered through DRA: the daemon's driver, a kubelet and an API server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.api_server import stand_in_api_server
from tests.support.dra_node import DraNode


@pytest.fixture
def idle_node(short_path: Path) -> Iterator[DraNode]:
    """No daemon and no kubelet run yet."""
    with stand_in_api_server() as server:
        yield DraNode(short_path, server)


@pytest.fixture
async def node(idle_node: DraNode) -> AsyncIterator[DraNode]:
    """The daemon and the kubelet run."""
    async with idle_node.running():
        yield idle_node
