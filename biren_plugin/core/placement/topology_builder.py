"""Builds a topology when its inputs change, never on request.

For each pair, the library's link and common ancestor count if it reports them; sysfs fills in the rest.
"""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from biren_plugin.core.parse.brml import CommonAncestor, P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.sysfs import card_number
from biren_plugin.core.placement.pair_scores import Pair, Place, pair_in_sysfs
from biren_plugin.core.placement.topology import NO_TOPOLOGY, Topology, tree_of


def build_topology(
    cards: Iterable[Card],
    links: Mapping[tuple[int, int], P2PLink] = {},
    ancestors: Mapping[tuple[int, int], CommonAncestor] = {},
) -> Topology:
    """Return the topology of these cards; `links` and `ancestors` are by node ids, the lower first.

    Of two cards with one name the later counts. A VFIO group has no node id: only its place in the PCI tree
    counts.
    """
    ordered = sorted({card.name: card for card in cards}.values(), key=lambda card: card.number)
    at = {card_number(card.name): place for place, card in enumerate(ordered)}
    rows = _rows_from_sysfs(ordered)
    for one, two in links.keys() | ancestors.keys():
        if one in at and two in at:
            row, column = at[one], at[two]
            pair = rows[row][column]
            rows[row][column] = rows[column][row] = attrs.evolve(
                pair,
                link=links.get((one, two)),
                ancestor=ancestors.get((one, two), pair.ancestor),
            )
    scores = [[pair.score for pair in row] for row in rows]
    return Topology(
        units=tuple(card.name for card in ordered),
        numa_nodes=tuple(card.numa_node for card in ordered),
        pairs=tuple(map(tuple, rows)),
        scores=scores,
        place={card.name: place for place, card in enumerate(ordered)},
        tree=tree_of(range(len(ordered)), scores),
    )


def _rows_from_sysfs(cards: Sequence[Card]) -> list[list[Pair]]:
    """Return the scores by sysfs. Instances of one GPU share its place, so each pair of places is scored once."""
    places = list(dict.fromkeys(map(_place, cards)))
    below = [[pair_in_sysfs(one, two) for two in places[: n + 1]] for n, one in enumerate(places)]
    table = [
        [below[max(one, two)][min(one, two)] for two in range(len(places))]
        for one in range(len(places))
    ]
    number = {place: n for n, place in enumerate(places)}
    of_card = [number[_place(card)] for card in cards]
    return [[table[one][two] for two in of_card] for one in of_card]


class TopologyKeeper:
    """Builds a topology when its inputs have changed; otherwise returns the last one."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._links: Mapping[tuple[int, int], P2PLink] = {}
        self._ancestors: Mapping[tuple[int, int], CommonAncestor] = {}
        self._latest = NO_TOPOLOGY

    def update(
        self,
        cards: Iterable[Card],
        links: Mapping[tuple[int, int], P2PLink] = {},
        ancestors: Mapping[tuple[int, int], CommonAncestor] = {},
    ) -> Topology:
        """Return the topology of these cards; `links` and `ancestors` as in `build_topology`."""
        by_name = {card.name: card for card in cards}
        places = {name: _place(card) for name, card in by_name.items()}
        # Many scans come with the same round: only a different round is compared.
        told_anew = (links is not self._links and links != self._links) or (
            ancestors is not self._ancestors and ancestors != self._ancestors
        )
        if told_anew or places != self._places:
            self._latest = build_topology(by_name.values(), links, ancestors)
        self._places, self._links, self._ancestors = places, links, ancestors
        return self._latest


def _place(card: Card) -> Place:
    return Place(card.physical_id, card.pci_path, card.numa_node)
