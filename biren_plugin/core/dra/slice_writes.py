"""The writes that turn the stored slices of a pool into the wanted ones, as few as possible.

1. The wanted slices have places 0, 1, 2, ... ; a stored slice's place is in its name, because the
   scheduler takes slices in the order of their names.
2. Of two stored slices for one place, the one with the higher generation is kept. The other one, slices
   of other pools, and slices for unwanted places are deleted.
3. Consumers use a pool only if exactly `resourceSliceCount` slices of its highest generation exist.
   So one changed slice of a whole pool keeps the generation, more of them are a new generation; a
   incomplete pool is completed in its generation, if its existing slices are right.
4. A taint that already exists keeps its `timeAdded`: otherwise the server sets a new time, and each
   `tolerationSeconds` starts again.
5. A field that the server drops is not sent again and again: `Accepted` has what the server stored.

Source: the API's validation and `k8s.io/dynamic-resource-allocation/resourceslice` of 1.36.
"""

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from biren_plugin.core.parse.api_shapes import Object, Shape
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.records import frozen

API_VERSION: Final = "resource.k8s.io/v1"
_TAINT: Final[Shape] = {"key": str, "effect": str, "value?": str, "timeAdded?": str}
SLICE: Final[Shape] = {
    "metadata": {"name": str, "uid": str, "resourceVersion": str},
    "spec": {
        "driver": str,
        "nodeName?": str,
        "pool": {"name": str, "generation": int, "resourceSliceCount": int},
        "devices?": [{"name": str, "taints?": [_TAINT]}],
    },
}
"""The shape of a stored slice."""
_PLACE: Final = re.compile(r"([0-9a-f]{5})-")


@frozen
class Owner:
    """The node that owns the pool."""

    name: str
    uid: str


@frozen
class Delete:
    """Delete a stored slice."""

    stored: Object


@frozen
class Update:
    """Replace a stored slice; `slice` has its name and version."""

    slice: Object


@frozen
class Create:
    """Create a slice."""

    slice: Object


Write = Delete | Update | Create
Devices = Sequence[Object]
"""The devices of one slice, in the API's form."""


Accepted = Mapping[str, str]
"""What the server stored for a spec of which it dropped a field; keys and values by `plain`."""
NOTHING_DROPPED: Final[Accepted] = MappingProxyType({})


def writes_for(
    wanted: Sequence[Devices],
    stored: Mapping[str, Object],
    owner: Owner,
    accepted: Accepted = NOTHING_DROPPED,
) -> list[Write]:
    """Return the writes, in order: deletions, updates, creations. Empty: everything is as wanted.

    `wanted` holds the devices of each slice, at least one slice; `stored` the node's slices of this
    driver, by name.
    """
    current, obsolete = _current(stored.values(), owner, len(wanted))
    highest = max(map(_generation, current.values()), default=1)
    specs = [_spec(devices, owner, highest, len(wanted)) for devices in wanted]
    newest = [place for place, each in current.items() if _generation(each) == highest]
    wrong = [
        place for place in newest
        if plain(current[place]["spec"]) not in _acceptable(specs[place], accepted)
    ]  # fmt: skip
    missing = [place for place in range(len(wanted)) if place not in current]
    late = [place for place in current if place not in newest]
    if len(wrong) > 1 or (wrong and (missing or late)):
        for spec in specs:
            spec["pool"]["generation"] = highest + 1
        wrong, late = list(current), []
    return [
        *(Delete(each) for each in obsolete),
        *(_update(specs[place], current[place]) for place in sorted({*wrong, *late})),
        *(_create(specs[place], place, owner) for place in missing),
    ]


def _acceptable(spec: Object, accepted: Accepted) -> set[str]:
    wanted = plain(spec)
    return {wanted, accepted.get(wanted, wanted)}


def _current(
    stored: Iterable[Object], owner: Owner, count: int
) -> tuple[dict[int, Object], list[Object]]:
    """Return the slices to keep, by place, and the slices to delete."""
    current: dict[int, Object] = {}
    obsolete = []
    for each in sorted(stored, key=lambda each: (-_generation(each), each["metadata"]["name"])):
        place = _place(each)
        if (
            place is not None
            and each["spec"]["pool"]["name"] == owner.name
            and place < count
            and place not in current
        ):
            current[place] = each
        else:
            obsolete.append(each)
    return current, obsolete


def _spec(devices: Devices, owner: Owner, generation: int, count: int) -> Object:
    return {
        "driver": DRA_DRIVER,
        "nodeName": owner.name,
        "pool": {"name": owner.name, "generation": generation, "resourceSliceCount": count},
        "devices": [copy.deepcopy(each) for each in devices],
    }


def plain(spec: Object) -> str:
    """Return the compared part of a slice's spec: without its generation and what the server adds."""
    devices = [
        {
            **each,
            "taints": [
                {key: value for key, value in taint.items() if key != "timeAdded"}
                for taint in each.get("taints") or ()
            ],
        }
        for each in spec.get("devices") or ()
    ]
    pool = {key: spec["pool"][key] for key in ("name", "resourceSliceCount")}
    compared = {
        "driver": spec["driver"], "node": spec.get("nodeName"), "pool": pool, "devices": devices,
    }  # fmt: skip
    return json.dumps(compared, sort_keys=True)


def _update(spec: Object, stored: Object) -> Update:
    known = {
        (device["name"], taint["key"], taint["effect"], taint.get("value", "")): taint["timeAdded"]
        for device in stored["spec"].get("devices") or ()
        for taint in device.get("taints") or ()
        if "timeAdded" in taint
    }
    for device in spec["devices"]:
        for taint in device.get("taints") or ():
            key = device["name"], taint["key"], taint["effect"], taint.get("value", "")
            if key in known:
                taint["timeAdded"] = known[key]
    return Update(
        {
            "apiVersion": API_VERSION,
            "kind": "ResourceSlice",
            "metadata": stored["metadata"],
            "spec": spec,
        }
    )


def _create(spec: Object, place: int, owner: Owner) -> Create:
    return Create(
        {
            "apiVersion": API_VERSION,
            "kind": "ResourceSlice",
            "metadata": {
                "generateName": f"{place:05x}-{DRA_DRIVER}-{owner.name}-",
                "ownerReferences": [
                    {
                        "apiVersion": "v1",
                        "kind": "Node",
                        "name": owner.name,
                        "uid": owner.uid,
                        "controller": True,
                    }
                ],
            },
            "spec": spec,
        }
    )


def _generation(stored: Object) -> int:
    generation: int = stored["spec"]["pool"]["generation"]
    return generation


def _place(stored: Object) -> int | None:
    found = _PLACE.match(stored["metadata"]["name"])
    return int(found[1], 16) if found else None
