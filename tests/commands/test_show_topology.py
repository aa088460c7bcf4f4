"""`devices --topology` takes from the management library what it tells in time, and waits for no more.

In this process, because the library is played: what tells of links is a task that posts rounds.
"""

from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.commands import show_topology as view
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import LibraryFacts, P2PLink
from biren_plugin.core.placement.topology import Topology
from biren_plugin.errors import LibraryUnusable
from biren_plugin.simulate.host import SimulatedHost

FIRST = LibraryRound(0.0, LibraryFacts("libbiren-ml.so.1"))
"""As the library's first round is: cards, and no word of links yet."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with three cards."""
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1, 4: 1})
    return host.root


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[LibraryRound]:
    """A library that can be loaded; what is in the list is posted, a second between each two."""
    rounds: list[LibraryRound] = []

    async def query(_root: Path, observed: Board[Observed], *, interval: float) -> None:
        for told in rounds:
            observed.post(attrs.evolve(observed.latest or Observed(), library=told))
            await trio.sleep(1)  # on a mock clock
        await trio.sleep_forever()

    monkeypatch.setattr(view, "query_library", query)
    monkeypatch.setattr(view, "find_library", lambda _root: ["libbiren-ml.so.1"])
    monkeypatch.setattr(view, "Brml", lambda path: path)
    return rounds


def words(topology: Topology) -> list[str]:
    """Of card_0 with card_1 and with card_2."""
    return [pair.words for pair in topology.pairs[0][1:]]


async def test_links_are_waited_for(
    root: Path, library: list[LibraryRound], autojump_clock: MockClock
) -> None:
    links = {(0, 1): P2PLink.INDIRECT, (0, 2): P2PLink.NONE}
    library += [FIRST, attrs.evolve(FIRST, links=links)]
    topology, told = await view.read_topology(root)
    assert (told, words(topology)) == (True, ["indirectly linked", "apart"])
    assert trio.current_time() == 1


async def test_library_that_tells_of_no_pair_is_not_waited_for_long(
    root: Path, library: list[LibraryRound], autojump_clock: MockClock
) -> None:
    library += [FIRST]
    topology, told = await view.read_topology(root)
    assert (told, words(topology)) == (False, ["behind one PCIe switch", "apart"])
    assert trio.current_time() == 3


async def test_library_that_cannot_be_loaded_is_not_waited_for_at_all(
    root: Path,
    library: list[LibraryRound],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    def refuse(path: str) -> None:
        raise LibraryUnusable(f"cannot load {path}")

    monkeypatch.setattr(view, "Brml", refuse)
    topology, told = await view.read_topology(root)
    assert (told, words(topology)) == (False, ["behind one PCIe switch", "apart"])
    assert trio.current_time() == 0
