"""The node's pool: each device with its name, attributes, capacity and taints, in allocation order.

1. A name is that of the hardware: PCI address, split and instance. `card_N` may pass to another GPU, and
   claims of running pods contain the name.
2. Every device has every attribute of the driver's own domain, since one missing attribute ends the
   scheduler's whole attempt: an empty string, -1 or 0.0.0 means unknown. The places that all drivers publish,
   which `matchAttribute` compares, are left out while unknown: two unknown places are not one.
3. The scheduler takes the first device that fits. Cards that are close to each other, and the
   instances of one GPU, are listed side by side, so that devices taken together are close.
4. Each reason is a taint in the driver's domain, named by its probe; a warning's effect is `None`.

Source of the rules: resource.k8s.io/v1 of Kubernetes 1.36.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import attrs

from biren_plugin.core.model import Device, Identity, Inventory
from biren_plugin.core.observed import NO_HOLDERS, Holders
from biren_plugin.core.parse.api_shapes import Object
from biren_plugin.core.parse.brml import CardReading, P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.core.placement.pair_scores import Pair
from biren_plugin.core.placement.topology import Topology
from biren_plugin.records import frozen

SLICE_SIZE: Final = 64
"""Devices of one slice; the API accepts 128, and 64 as soon as one of them has a taint."""
MAX_TAINTS: Final = 16
HELD_BY_PLUGIN: Final = "held-by-device-plugin"
"""The taint of a card that a pod still holds through the device plugin API."""
UNHEALTHY: Final = "unhealthy"
"""The taint of a card that is unhealthy without a probe's fault: it is recovering, or retiring."""
_TEXT: Final = 64
"""Bytes of an attribute's text."""
_ROOT: Final = re.compile(r"pci[0-9a-f]{4,}:[0-9a-f]{2}")
_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?")


Uuids = Mapping[Identity, str]
"""UUIDs by unit of hardware; a card that the management library has not named is missing."""
NO_UUIDS: Final[Uuids] = {}


@frozen
class Pool:
    """What the node offers through DRA."""

    devices: Mapping[str, Device] = attrs.Factory(dict)
    """By name, in allocation order."""
    taints: Mapping[str, tuple[Object, ...]] = attrs.Factory(dict)
    """By name, without the times that the API server adds."""
    slices: tuple[tuple[Object, ...], ...] = ((),)
    """The API's devices, divided into slices; one empty slice for a node without cards."""
    nameless: tuple[str, ...] = ()
    """Sentences about cards that are not offered because their hardware has no name."""


def known_uuids(
    inventory: Inventory, readings: Mapping[int, CardReading], before: Uuids
) -> dict[Identity, str]:
    """Return the UUID of each present card: from the library's `readings`, else as it was `before`.

    A library that fails for a while must not take attributes from published devices.
    """
    found = {}
    for each in inventory.lists:
        for device in each.devices:
            reading = None if device.card.is_group else readings.get(device.card.number)
            known = before.get(device.identity)
            read = reading.uuid if reading is not None and device.card.present else None
            if (uuid := read or known) is not None:
                found[device.identity] = uuid
    return found


def pool_of(
    inventory: Inventory,
    driver_version: str | None,
    holders: Holders | None = None,
    evicting: Collection[str] = (),
    uuids: Uuids = NO_UUIDS,
) -> Pool:
    """Return the pool of `inventory`.

    `uuids` as `known_uuids` returns them; `holders` are the pods that hold cards through the device plugin API; a reason of a probe in
    `evicting` has effect NoExecute instead of NoSchedule.
    """
    devices: dict[str, Device] = {}
    nameless = []
    for device in _in_order(inventory):
        if (name := device.pool_name) is None:
            nameless.append(
                f"{device.id} is not offered: its PCI address is unknown; see `lspci -D`"
            )
        else:
            known = devices.get(name)
            # Two cards with one name are one unit that was renumbered: the healthy card is the current one.
            if known is None or (device.healthy and not known.healthy):
                devices[name] = device
    held = holders or NO_HOLDERS
    taints = {
        name: _taints(device, (device.resource, device.id) in held, evicting)
        for name, device in devices.items()
    }
    entries = [
        {
            "name": name,
            "attributes": _attributes(
                device, inventory.topology, driver_version, uuids.get(device.identity, "")
            ),
            "capacity": {"memory": {"value": str(device.card.memory or 0)}},
            **({"taints": [dict(each) for each in taints[name]]} if taints[name] else {}),
        }
        for name, device in devices.items()
    ]
    cuts = range(0, max(len(entries), 1), SLICE_SIZE)
    slices = tuple(tuple(entries[start : start + SLICE_SIZE]) for start in cuts)
    return Pool(devices, taints, slices, tuple(nameless))


def type_of(device: Device) -> str:
    """Return `gpu`, `1-2-gpu` or `1-4-gpu`; for VFIO groups `vfio-gpu` and so on."""
    kind = device.resource.rpartition("/")[2]
    return f"vfio-{kind}" if device.card.is_group else kind


def _in_order(inventory: Inventory) -> Iterator[Device]:
    place = {unit: at for at, unit in enumerate(inventory.topology.side_by_side())}
    for each in sorted(inventory.lists, key=lambda found: found.resource):
        yield from sorted(
            each.devices,
            key=lambda device: (place.get(device.id, len(place)), device.card.number),
        )


def _attributes(
    device: Device, topology: Topology, driver_version: str | None, uuid: str
) -> Object:
    card = device.card
    root = card.pci_path[0] if card.pci_path else ""
    numa = -1 if card.numa_node is None else card.numa_node
    return {
        "type": {"string": type_of(device)},
        "card": {"string": _text(card.name)},
        "uuid": {"string": _text(uuid)},
        "product": {"string": _text(card.product or "")},
        "productName": {"string": _text(card.product_name or "")},
        "physicalGpu": {"int": -1 if card.physical_id is None else card.physical_id},
        "instance": {"int": device.instance},
        "numaNode": {"int": numa},
        "driverVersion": {"version": semantic(driver_version)},
        "linkGroup": {"string": _link_group(device, topology)},
        "resource.kubernetes.io/pciBusID": {"string": _pci(card)},
        **({"resource.kubernetes.io/pcieRoot": {"string": root}} if _ROOT.fullmatch(root) else {}),
        **({"resource.kubernetes.io/numaNode": {"int": numa}} if numa >= 0 else {}),
    }


def _text(value: str) -> str:
    """Return the value in at most `_TEXT` bytes of UTF-8."""
    return value.encode(errors="replace")[:_TEXT].decode(errors="ignore")


def _pci(card: Card) -> str:
    return (card.functions[0] if card.functions else card.pci_address) or ""


def _link_group(device: Device, topology: Topology) -> str:
    """Return the lowest card that the unit has fast links to, itself included: `card_0`."""
    place = topology.place.get(device.id)
    if place is None:
        return _text(device.id)
    joined = [
        unit
        for other, unit in enumerate(topology.units)
        if other == place or _is_joined(topology.pairs[place][other])
    ]
    return _text(joined[0])


def _is_joined(pair: Pair) -> bool:
    return pair.same_gpu or pair.link is P2PLink.DIRECT


def semantic(version: str | None) -> str:
    """Return a version in the API's form: three numbers without leading zeros; 0.0.0 if unknown."""
    found = _VERSION.match(version or "")
    return ".".join(str(int(part or 0)) for part in found.groups()) if found else "0.0.0"


def _taints(device: Device, held: bool, evicting: Collection[str]) -> tuple[Object, ...]:
    """Return one taint for each probe with a finding; the strongest effect counts."""
    taints: dict[str, Object] = {}
    unnamed = (UNHEALTHY,) if device.reasons else ()
    for probe in device.faults or unnamed:
        effect = "NoExecute" if probe in evicting else "NoSchedule"
        taints[probe] = _taint(probe, effect)
    for probe in device.warned:
        taints.setdefault(probe, _taint(probe, "None"))
    if held:
        taints[HELD_BY_PLUGIN] = _taint(HELD_BY_PLUGIN, "NoSchedule")
    return tuple(taints.values())[:MAX_TAINTS]


def _taint(key: str, effect: str) -> Object:
    return {"key": f"{DRA_DRIVER}/{key}", "effect": effect}
