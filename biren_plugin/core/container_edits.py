"""What a container gets with its cards: device nodes, environment and mounts, or CDI names of them.

Paths are the host's own, whatever root the host was read under.
"""

from collections.abc import Callable, Sequence

import attrs

from biren_plugin.core.model import HostFacts, Mount
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vendor import CARDS_VARIABLE, CONTROL_NODE


@attrs.frozen
class ContainerEdits:
    """One container's share."""

    env: tuple[tuple[str, str], ...] = ()
    device_nodes: tuple[str, ...] = ()
    """Paths, the same on the host and in the container, to be opened `rw`."""
    links: tuple[tuple[str, str], ...] = ()
    """Device nodes that are links on the host: the path in the container, and the host's real one."""
    mounts: tuple[Mount, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    """Names that the container's runtime looks up in the node's CDI file: what they stand for is there."""


Answer = Callable[[Sequence[Card], HostFacts], ContainerEdits]
"""How `Allocate` answers for the cards of one container."""


def edits_for(cards: Sequence[Card], host: HostFacts) -> ContainerEdits:
    """The share of a container with these cards; nothing at all for none."""
    if not cards:
        return ContainerEdits()
    nodes = [card.path for card in by_number(cards)]
    return ContainerEdits(
        env=environment(cards),
        device_nodes=(*nodes, *shared_nodes(host)),
        links=(*card_links(cards), *host.links),
        mounts=host.mounts,
    )


def environment(cards: Sequence[Card]) -> tuple[tuple[str, str], ...]:
    """`BR_PHY_CARDS`, which Biren's runtime reads: the cards in order of their numbers."""
    return ((CARDS_VARIABLE, ",".join(card.name for card in by_number(cards))),)


def card_links(cards: Sequence[Card]) -> tuple[tuple[str, str], ...]:
    """Of the cards' nodes those that are links on the host, with the host's real path."""
    return tuple(
        (card.path, card.host_node) for card in by_number(cards) if card.host_node is not None
    )


def shared_nodes(host: HostFacts) -> tuple[str, ...]:
    """The nodes that each container with a card gets besides its cards'."""
    nodes = (CONTROL_NODE if host.control_node else None, host.dri_node)
    return tuple(node for node in nodes if node is not None)


def by_number(cards: Sequence[Card]) -> list[Card]:
    """The cards in the order in which containers get them."""
    return sorted(cards, key=lambda card: card.number)
