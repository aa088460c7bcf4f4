"""What a container gets for the cards it was given: nodes, environment, mounts.

Paths are the host's own, whatever root the host was read under.
"""

from collections.abc import Sequence

import attrs

from biren_plugin.core.model import Card, HostFacts, Mount

CONTROL_NODE = "/dev/biren-m"


@attrs.frozen
class ContainerEdits:
    """One container's share."""

    env: tuple[tuple[str, str], ...] = ()
    device_nodes: tuple[str, ...] = ()
    """Paths, the same on the host and in the container, to be opened `rw`."""
    mounts: tuple[Mount, ...] = ()


def edits_for(cards: Sequence[Card], host: HostFacts) -> ContainerEdits:
    """The share of a container with these cards; nothing at all for none.

    `BR_PHY_CARDS` is what Biren's runtime reads, in card order.
    """
    if not cards:
        return ContainerEdits()
    ordered = sorted(cards, key=lambda card: card.number)
    nodes = [card.path for card in ordered]
    if host.control_node:
        nodes.append(CONTROL_NODE)
    if host.dri_node is not None:
        nodes.append(host.dri_node)
    return ContainerEdits(
        env=(("BR_PHY_CARDS", ",".join(card.name for card in ordered)),),
        device_nodes=tuple(nodes),
        mounts=host.mounts,
    )
