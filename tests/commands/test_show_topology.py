"""`devices --topology` uses links that the management library reports in time, and does not wait longer.

In this process, because the library is played: what tells of links is a task that posts rounds.
"""

import threading
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.commands import show_topology as view
from biren_plugin.core.model import Snapshot
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import LibraryFacts, P2PLink
from biren_plugin.core.placement.topology import Topology
from biren_plugin.core.settings import Settings
from biren_plugin.errors import LibraryUnusable
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.readers import read_once
from biren_plugin.simulate.host import SimulatedHost

FIRST = LibraryRound(0.0, LibraryFacts("libbiren-ml.so.1"))
"""As the library's first round is: cards, and no word of links yet."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with three cards."""
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1, 4: 1})
    return host.root


async def loaded(_root: Path) -> bool:
    return True


async def scan(settings: Settings) -> Snapshot:
    return read_once(DriverCardReader(settings.host_root))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[LibraryRound]:
    """A loadable library; the rounds in the list are posted, one each second."""
    rounds: list[LibraryRound] = []

    async def query(_root: Path, observed: Board[Observed], *, interval: float) -> None:
        for told in rounds:
            observed.post(attrs.evolve(observed.latest or Observed(), library=told))
            await trio.sleep(1)  # on a mock clock
        await trio.sleep_forever()

    monkeypatch.setattr(view, "query_library", query)
    # Threads and this clock, which jumps while one is at work, do not go together.
    monkeypatch.setattr(view, "_can_be_loaded", loaded)
    monkeypatch.setattr(view, "scan_once", scan)
    return rounds


def words(topology: Topology) -> list[str]:
    """Return the words for card_0 with card_1 and with card_2."""
    return [pair.words for pair in topology.pairs[0][1:]]


async def test_links_are_waited_for(
    root: Path, library: list[LibraryRound], autojump_clock: MockClock
) -> None:
    links = {(0, 1): P2PLink.INDIRECT, (0, 2): P2PLink.NONE}
    library += [FIRST, attrs.evolve(FIRST, links=links)]
    topology, told = await view.read_topology(Settings(host_root=root))
    assert (told, words(topology)) == (True, ["indirectly linked", "apart"])
    assert trio.current_time() == 1


async def test_a_library_that_reports_no_pair_is_not_waited_for_long(
    root: Path, library: list[LibraryRound], autojump_clock: MockClock
) -> None:
    library += [FIRST]
    topology, told = await view.read_topology(Settings(host_root=root))
    assert (told, words(topology)) == (False, ["behind one PCIe switch", "apart"])
    assert trio.current_time() == 3


async def test_an_unloadable_library_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise LibraryUnusable(f"cannot load {path}")

    monkeypatch.setattr(view, "find_library", lambda _root: ["libbiren-ml.so.1"])
    monkeypatch.setattr(view, "Brml", refuse)
    topology, told = await view.read_topology(Settings(host_root=root))
    assert (told, words(topology)) == (False, ["behind one PCIe switch", "apart"])


async def test_a_library_that_hangs_while_loading_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    monkeypatch.setattr(view, "_LIBRARY_DEADLINE", 0.1)
    monkeypatch.setattr(view, "find_library", lambda _root: ["libbiren-ml.so.1"])
    monkeypatch.setattr(view, "Brml", lambda _path: back.wait(60))
    _topology, told = await view.read_topology(Settings(host_root=root))
    assert told is False
    back.set()
