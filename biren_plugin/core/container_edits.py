"""What a container gets with its cards: device nodes, environment and mounts, or their CDI names.

Paths are those of the host, under whichever root the host was read.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from biren_plugin.core.model import HostFacts, Mount
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vendor import CARDS_VARIABLE, CONTROL_NODE, VISIBLE_VARIABLE
from biren_plugin.records import frozen


@frozen
class ContainerEdits:
    """What one container gets."""

    env: tuple[tuple[str, str], ...] = ()
    device_nodes: tuple[str, ...] = ()
    """Paths, the same on the host and in the container, opened `rw`."""
    links: tuple[tuple[str, str], ...] = ()
    """Device nodes that are links on the host: the path in the container, and the host's real one."""
    mounts: tuple[Mount, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    """Names that the container's runtime looks up in the node's CDI file, which has the edits."""


Answer = Callable[[Sequence[Card], HostFacts], ContainerEdits]
"""Builds the answer of `Allocate` for the cards of one container."""


VisibleDevices = Literal["none", "index"]
"""Whether containers also get `BIREN_VISIBLE_DEVICES`."""


def edits_for(
    cards: Sequence[Card], host: HostFacts, visible: VisibleDevices = "none"
) -> ContainerEdits:
    """Return what a container with these cards gets; nothing at all without cards."""
    if not cards:
        return ContainerEdits()
    nodes = [card.path for card in by_number(cards)]
    return ContainerEdits(
        env=environment(cards, visible),
        device_nodes=(*nodes, *shared_nodes(host)),
        links=(*card_links(cards), *host.links),
        mounts=host.mounts,
    )


def environment(
    cards: Sequence[Card], visible: VisibleDevices = "none"
) -> tuple[tuple[str, str], ...]:
    """Return `BR_PHY_CARDS`, which Biren's runtime reads: the cards in order of their numbers.

    With `index` also `BIREN_VISIBLE_DEVICES`, which Biren's libraries read: the cards as a container that sees
    no others counts them, from 0 on (*assumed* from field notes of 2026; no one confirmed it on hardware).
    """
    names = [card.name for card in by_number(cards)]
    variables = [(CARDS_VARIABLE, ",".join(names))]
    if visible == "index":
        variables.append((VISIBLE_VARIABLE, ",".join(map(str, range(len(names))))))
    return tuple(variables)


def card_links(cards: Sequence[Card]) -> tuple[tuple[str, str], ...]:
    """Return the card nodes that are links on the host, with the host's real path."""
    return tuple(
        (card.path, card.host_node) for card in by_number(cards) if card.host_node is not None
    )


def shared_nodes(host: HostFacts) -> tuple[str, ...]:
    """Return the nodes that every container with a card gets besides its cards' nodes."""
    nodes = (CONTROL_NODE if host.control_node else None, host.dri_node)
    return tuple(node for node in nodes if node is not None)


def by_number(cards: Sequence[Card]) -> list[Card]:
    """Return the cards in the order in which containers get them."""
    return sorted(cards, key=lambda card: card.number)
