"""The node's cards as HAMi reads them, and how to take them back.

1. HAMi fits a pod on cards whose `type` is exactly `Biren`; a longer one loses cards of pods with init
   containers. `count` 1: one pod for each card. A card without `health` is never chosen.
2. HAMi takes cards from the end: the highest NUMA node first, then the last in the list. Cards that
   are close stand side by side.
3. HAMi keeps the last list that has a card: an empty one takes nothing back. The last cards leave as
   faulty ones; a node is left for good by `LEAVING`.

Source: HAMi v2.10.0, `pkg/device/biren`; seen with its scheduler.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from biren_plugin.core.hami.annotations import CARDS, HANDSHAKE, is_usable_id
from biren_plugin.core.model import Device
from biren_plugin.core.placement.topology import Topology

_MIB: Final = 1024**2
_TYPE: Final = "Biren"

LEAVING: Final[Mapping[str, str | None]] = {
    CARDS: None,
    HANDSHAKE: "Requesting_2000-01-01 00:00:00",
}
"""HAMi drops the node's cards at its next look, once none is allocatable."""


def write_cards(devices: Iterable[Device], topology: Topology) -> str | None:
    """The annotation for these devices; None for none."""
    place = {unit: at for at, unit in enumerate(topology.side_by_side())}
    ordered = sorted(
        (device for device in devices if is_usable_id(device.id)),
        key=lambda device: (place.get(device.id, len(place)), device.card.number),
    )
    return _write([_entry(device) for device in ordered])


def _entry(device: Device) -> dict[str, Any]:
    card = device.card
    return {
        "id": device.id,
        "index": card.number,
        "count": 1,
        "devmem": (card.memory or 0) // _MIB,
        "type": _TYPE,
        **({} if card.numa_node is None else {"numa": card.numa_node}),
        "health": device.healthy,
        **({} if card.product is None else {"custominfo": {"product": card.product}}),
    }


def faulty_cards(stored: str) -> str | None:
    """The cards of a stored annotation, all faulty; None if it holds none."""
    try:
        cards = json.loads(stored or "[]")
    except (ValueError, RecursionError):
        return None
    if not isinstance(cards, list):
        return None
    return _write([{**card, "health": False} for card in cards if isinstance(card, dict)])


def _write(cards: Sequence[Mapping[str, Any]]) -> str | None:
    return json.dumps(cards, separators=(",", ":")) if cards else None


def reporting(cards: str, time: str) -> dict[str, str]:
    """The two annotations that HAMi takes together, and only together; `time` is for people."""
    return {CARDS: cards, HANDSHAKE: f"Reported_{time}"}
