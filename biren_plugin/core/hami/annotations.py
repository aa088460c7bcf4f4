"""The annotations that HAMi's scheduler and a Biren device plugin exchange: names, and texts both ways.

Source: HAMi v2.10.0 (`4707fb0`), with values recorded from its scheduler. Texts are other people's: a
text that cannot be read gives None or fewer entries, never an exception.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs

from biren_plugin.core.parse.vendor import HAMI_BACKEND

Object = Mapping[str, Any]
"""An object of the API, as JSON has it."""

CARDS: Final = f"hami.io/node-{HAMI_BACKEND}-register"
"""Of a node, written by the plugin: a JSON array of its cards."""
HANDSHAKE: Final = f"hami.io/node-handshake-{HAMI_BACKEND}"
"""Of a node: `Reported_<time>` by the plugin, `Requesting_<time>` by the scheduler."""
LOCK: Final = "hami.io/mutex.lock"
"""Of a node, taken by the scheduler for one pod, released by the plugin."""
NODE: Final = "hami.io/vgpu-node"
"""Of a pod: the node that was chosen for it."""
TO_ALLOCATE: Final = "hami.io/Biren-devices-to-allocate"
"""Of a pod: the cards of each container, emptied entry by entry as the plugin allocates them."""
ALLOCATED: Final = "hami.io/Biren-devices-allocated"
"""Of a pod: the same, never emptied. It is the scheduler's own record, and never written here."""
PHASE: Final = "hami.io/bind-phase"
"""Of a pod: `allocating` by the scheduler, `success` or `failed` by the plugin."""
BIND_TIME: Final = "hami.io/bind-time"
"""Of a pod: seconds since 1970."""
SUCCESS: Final = "success"
FAILED: Final = "failed"

_RESERVED: Final = re.compile("[,:;]")
"""They separate the parts of an annotation: HAMi loses cards whose id has one when it restarts."""


def annotation(found: Object, name: str) -> str:
    """The annotation of an object; empty if it has none."""
    value = ((found.get("metadata") or {}).get("annotations") or {}).get(name)
    return value if isinstance(value, str) else ""


def is_usable_id(device_id: str) -> bool:
    """Whether HAMi can keep a card with this id in its books."""
    return bool(device_id) and not _RESERVED.search(device_id)


def read_entries(text: str) -> tuple[frozenset[str], ...]:
    """The cards of each container, init containers first; empty for a container without open cards.

    `card_6,Biren,0,0:card_5,Biren,0,0:;;` has two entries, of which the second is empty.
    """
    parts = text.split(";")
    if not parts[-1]:
        parts.pop()  # each entry is closed by its `;`
    return tuple(
        frozenset(card.split(",")[0] for card in part.split(":") if card) for part in parts
    )


def without_entries(text: str, count: int) -> str:
    """`text` with its first `count` entries emptied; each keeps its `;`."""
    parts = text.split(";")
    return ";".join("" if place < count else part for place, part in enumerate(parts))


@attrs.frozen
class Lock:
    """The node's lock, as long as its text is one that HAMi writes."""

    text: str
    """`2026-11-28T01:35:41Z,default,p1`"""
    namespace: str
    pod: str

    def is_for(self, namespace: str, pod: str) -> bool:
        """Whether it was taken for that pod."""
        return (self.namespace, self.pod) == (namespace, pod)


def read_lock(text: str) -> Lock | None:
    """The lock that an annotation holds; None for none, and for a text without three parts."""
    parts = text.split(",")
    if len(parts) != 3 or not all(parts):
        return None
    return Lock(text, parts[1], parts[2])


def annotating(values: Mapping[str, str | None], **metadata: str) -> dict[str, Any]:
    """A merge patch that sets annotations, or removes those that are None.

    `metadata` are preconditions: `uid`, `resourceVersion`.
    """
    return {"metadata": {"annotations": dict(values), **metadata}}


def in_order(cards: Collection[str]) -> str:
    """Cards for a sentence: by name, or `none`."""
    return ", ".join(sorted(cards)) or "none"
