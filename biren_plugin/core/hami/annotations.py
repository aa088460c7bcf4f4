"""The annotations that HAMi's scheduler and a Biren device plugin exchange: names, and texts both ways.

1. HAMi fits a pod on cards whose `type` is exactly `Biren`; a longer one loses cards of pods with init
   containers. `count` 1: one pod for each card. A card without `health` is never chosen.
2. HAMi takes cards from the end: the highest NUMA node first, then the last in the list. Cards that
   are close stand side by side.
3. HAMi keeps the last list that has a card: an empty one takes nothing back. The last cards leave as
   faulty ones; a node is left for good by `LEAVING`.

Source: HAMi v2.10.0 (`4707fb0`), `pkg/device/biren`, with values recorded from its scheduler. Texts are other
people's: a text that cannot be read gives None or fewer entries, never an exception.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from biren_plugin.core.model import Device
from biren_plugin.core.parse.api_shapes import Object, Shape
from biren_plugin.core.parse.vendor import HAMI_BACKEND
from biren_plugin.core.placement.topology import Topology
from biren_plugin.records import frozen

_METADATA: Final[Shape] = {
    "name": str,
    "uid": str,
    "resourceVersion": str,
    "namespace?": str,
    "deletionTimestamp?": str,
    "labels?": {"*": str},
    "annotations?": {"*": str},
    "ownerReferences?": [{"kind": str, "name": str}],
}
NODE_SHAPE: Final[Shape] = {"metadata": _METADATA}
POD_SHAPE: Final[Shape] = {
    "metadata": _METADATA,
    "spec?": {"nodeName?": str},
    "status?": {"phase?": str, "startTime?": str},
}
DAEMONSET_SHAPE: Final[Shape] = {
    "metadata": _METADATA, "spec": {"template": {"spec": {"nodeSelector?": {"*": str}}}},
}  # fmt: skip

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

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
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


@frozen
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


def daemonset_of(pod: Object) -> str | None:
    """The name of the DaemonSet that runs a pod; None for a pod that something else runs."""
    owners = (pod.get("metadata") or {}).get("ownerReferences") or ()
    return next((each["name"] for each in owners if each.get("kind") == "DaemonSet"), None)


def is_leaving(daemonset: Object | None, node: Object) -> bool:
    """Whether no pod of the DaemonSet follows on the node; None if there is no DaemonSet any more."""
    if daemonset is None or daemonset["metadata"].get("deletionTimestamp"):
        return True
    return not _is_selected(daemonset["spec"]["template"]["spec"], node)


def _is_selected(pod: Object, node: Object) -> bool:
    """Whether a pod's spec may run on the node, by its `nodeSelector` and its required node affinity."""
    labels = node["metadata"].get("labels") or {}
    if not (pod.get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    fields = {"metadata.name": node["metadata"].get("name", "")}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_fits(each, labels) for each in term.get("matchExpressions") or ())
        and all(_fits(each, fields) for each in term.get("matchFields") or ())
        for term in required.get("nodeSelectorTerms") or ()
    )


def _fits(requirement: Object, labels: Mapping[str, str]) -> bool:
    """Whether labels meet one requirement; an operator that is new counts as met."""
    value, values = labels.get(requirement["key"]), list(requirement.get("values") or ())
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            if value is None or not _WHOLE.fullmatch(value) or not _WHOLE.fullmatch(values[0]):
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return True
