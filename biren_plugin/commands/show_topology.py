"""`devices --topology`: how close the cards are, as a matrix for people or a document for programs."""

import itertools
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from biren_plugin.board import Board
from biren_plugin.commands.tables import Row, print_table
from biren_plugin.core.inventory.physical_gpus import on_their_gpus
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import CommonAncestor, P2PLink
from biren_plugin.core.placement.pair_scores import Pair
from biren_plugin.core.placement.topology import Topology, build_topology
from biren_plugin.core.settings import Settings
from biren_plugin.errors import LibraryUnusable
from biren_plugin.host.brml_session import Brml, find_library
from biren_plugin.host.readers import scan_once
from biren_plugin.sources.library import query_library

_LIBRARY_DEADLINE: Final = 3.0
"""Seconds that the library has to report links; sysfs alone shows less."""
_LINKS: Final = {P2PLink.DIRECT: "DIR", P2PLink.INDIRECT: "IND"}
_ANCESTORS: Final = {
    CommonAncestor.BOARD: "BRD",
    CommonAncestor.PCIE_SWITCH: "PIX",
    CommonAncestor.PCIE_SWITCHES: "PXB",
    CommonAncestor.HOST_BRIDGE: "PHB",
    CommonAncestor.NUMA_NODE: "NODE",
    CommonAncestor.SYSTEM: "SYS",
}
_LEGEND: Final = {
    "X": "the card itself",
    "GPU": "instances of one GPU",
    "DIR": "linked directly",
    "IND": "linked indirectly",
    "BRD": "on one board",
    "PIX": "behind one PCIe switch",
    "PXB": "behind one root port, several switches apart",
    "PHB": "behind one host bridge",
    "NODE": "behind host bridges of one NUMA node",
    "SYS": "on different NUMA nodes, or unknown",
}


def show_topology(settings: Settings, *, as_json: bool) -> None:
    """Print how close the node's cards, or VFIO groups, are, and the source of that."""
    groups = settings.offers_groups
    topology, links_known = trio.run(read_topology, settings)
    if not (as_json or topology.units):
        kind, flag = ("VFIO group", " --container-runtime kata") if groups else ("card", "")
        print(f"No Biren {kind} on this host; see `br-gpu-device-plugin devices{flag}`")
        return
    if as_json:
        json.dump(document(topology, links_known=links_known), sys.stdout, indent=2)
        print()
        return
    rows = [
        Row([name, *_cells(topology, row), "-" if numa is None else str(numa)])
        for row, (name, numa) in enumerate(zip(topology.units, topology.numa_nodes, strict=True))
    ]
    print_table(["", *topology.units, "NUMA"], rows)
    print("\nLegend:")
    for word, meaning in _LEGEND.items():
        print(f"  {word:4} {meaning}")
    if not links_known:
        print("\nFrom sysfs alone: the management library reports no link.")


def document(topology: Topology, *, links_known: bool) -> dict[str, Any]:
    """Return the document of `--json`; its shape is schema/topology.schema.json."""
    return {
        "links_known": links_known,
        "cards": [
            {"card": name, "numa_node": numa}
            for name, numa in zip(topology.units, topology.numa_nodes, strict=True)
        ],
        "pairs": [
            {
                "cards": [topology.units[one], topology.units[two]],
                **_describe(topology.pairs[one][two]),
            }
            for one, two in itertools.combinations(range(len(topology.units)), 2)
        ],
    }


def _describe(pair: Pair) -> dict[str, Any]:
    return {
        "link": pair.link.name.lower() if pair.link is not None else None,
        "common_ancestor": pair.ancestor.name.lower(),
        "same_gpu": pair.same_gpu,
        "score": pair.score,
    }


def _cells(topology: Topology, row: int) -> list[str]:
    return [
        "X" if row == column else _word(pair) for column, pair in enumerate(topology.pairs[row])
    ]


def _word(pair: Pair) -> str:
    if pair.same_gpu:
        return "GPU"
    return _LINKS[pair.link] if pair.link else _ANCESTORS[pair.ancestor]


async def read_topology(settings: Settings) -> tuple[Topology, bool]:
    """Return the host's current topology, and whether the library reported any pair.

    A library that does not answer in time, as with a broken driver, is left out. Raises
    `HostUnreadable`.
    """
    snapshot = await scan_once(settings)
    library = None
    if snapshot.cards and not snapshot.shows_groups:
        with trio.move_on_after(_LIBRARY_DEADLINE):
            if await _can_be_loaded(settings.host_root):
                library = await _ask_library(settings.host_root, Observed(snapshot))
    links = library.links if library is not None else {}
    ancestors = library.ancestors if library is not None else {}
    cards = on_their_gpus(snapshot.cards)
    return build_topology(cards, links, ancestors), bool(links or ancestors)


async def _can_be_loaded(host_root: Path) -> bool:
    """Return whether there is a library; in a thread, because loading it runs its code, which may hang."""

    def load() -> bool:
        for path in find_library(host_root):
            with suppress(LibraryUnusable):
                Brml(path)
                return True
        return False

    return await trio.to_thread.run_sync(load, abandon_on_cancel=True)


async def _ask_library(host_root: Path, seen: Observed) -> LibraryRound | None:
    """Return the library's first round with pairs; None if there is none in time."""
    observed = Board[Observed]()
    observed.post(seen)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_query, host_root, observed)
        with trio.move_on_after(_LIBRARY_DEADLINE):
            await observed.wait_for(_tells_of_pairs)
        nursery.cancel_scope.cancel()
    return observed.latest.library if observed.latest is not None else None


async def _query(host_root: Path, observed: Board[Observed]) -> None:
    await query_library(host_root, observed, interval=_LIBRARY_DEADLINE)


def _tells_of_pairs(seen: Observed) -> bool:
    return seen.library is not None and bool(seen.library.links or seen.library.ancestors)
