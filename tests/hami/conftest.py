"""A node under HAMi, and waits that are short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from biren_plugin.hami import lock_keeper
from tests.support.api_server import StandInApiServer, stand_in_api_server
from tests.support.hami_node import HamiNode


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInApiServer]:
    monkeypatch.setattr(lock_keeper, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(lock_keeper, "LONGEST_WAIT", 0.1)
    with stand_in_api_server() as running:
        yield running


@pytest.fixture
async def node(api: StandInApiServer, tmp_path: Path) -> HamiNode:
    return HamiNode(api, tmp_path)
