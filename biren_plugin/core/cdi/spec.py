"""The content of the node's CDI file, and which devices may be offered with it.

1. One spec of one kind holds every unit of the node; edits that each container needs once are the spec's
   own. A device's edits and the spec's together are what `Allocate` gives without CDI.
2. A listed device is in the spec as long as its card exists: a device that a new split replaced stays
   until it leaves its list, because a container may just be starting with it.
3. A device that becomes Unhealthy is passed on at once, a new or Healthy device only when the spec is on
   disk: the file may lose devices that are no longer offered, and no device is offered that it lacks.

Source of the form: the CDI specification 1.1.0, of which the fields of 0.5.0 are used, because
containerd 1.7.0 reads no later version.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from biren_plugin.core.container_edits import (
    ContainerEdits,
    VisibleDevices,
    by_number,
    card_links,
    environment,
    shared_nodes,
)
from biren_plugin.core.model import Device, DeviceList, HostFacts, Mount
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vendor import CDI_KIND

VERSION: Final = "0.5.0"
MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a file; a thousand devices take 200 KiB."""
RUNTIME_CDI_DIRS: Final = ("/etc/cdi", "/var/run/cdi")
"""Where runtimes look for specs by default; a device in a later directory overrides an earlier one."""
MOUNT_OPTIONS: Final = ("ro", "rbind", "rprivate")
"""The options with which a runtime makes the read-only mounts of `Allocate`."""

_VFIO_FOLDER: Final = "/dev/vfio/"
_VFIO_NODE: Final = "/dev/vfio/vfio"
"""The device node that opens a VFIO container; needed once, however many groups there are."""

Spec = dict[str, Any]
"""A CDI spec as loaded from JSON or YAML: schema/cdi.schema.json."""


def device_name(card: Card) -> str:
    """Return `card_3`; `vfio-7` for the group `/dev/vfio/7`, whose path is not a valid CDI name."""
    return f"vfio-{card.number}" if _is_group(card) else card.name


def names_for(
    cards: Sequence[Card], _host: HostFacts, visible: VisibleDevices = "none"
) -> ContainerEdits:
    """Return the answer of `Allocate` with CDI: full device names, and what a spec cannot express."""
    if not cards:
        return ContainerEdits()
    return ContainerEdits(
        env=environment(cards, visible),
        cdi_devices=tuple(f"{CDI_KIND}={device_name(card)}" for card in by_number(cards)),
    )


def spec_for(lists: Sequence[DeviceList]) -> Spec | None:
    """Return the spec of all listed devices; None without a card, as a spec must hold a device.

    The last list decides what the host has besides cards.
    """
    cards = {
        device_name(device.card): device.card
        for each in lists
        for device in each.devices
        if _counts(device)
    }
    if not cards:
        return None
    ordered = by_number(list(cards.values()))
    nodes = [_VFIO_NODE] if any(map(_is_group, ordered)) else []
    host = lists[-1].host
    common = edits_of([*nodes, *shared_nodes(host)], host.mounts, host.links)
    spec: Spec = {
        "cdiVersion": VERSION,
        "kind": CDI_KIND,
        "devices": [
            {
                "name": device_name(card),
                "containerEdits": edits_of([card.path], links=card_links([card])),
            }
            for card in ordered
        ],
    }
    if common:  # empty edits are invalid
        spec["containerEdits"] = common
    return spec


def edits_of(
    nodes: Iterable[str],
    mounts: Iterable[Mount] = (),
    links: Iterable[tuple[str, str]] = (),
    env: Iterable[tuple[str, str]] = (),
) -> Spec:
    """Return `containerEdits` with these device nodes, read-only mounts and variables; empty for none.

    `links` are nodes that are links on the host: the path, and the node's real path.
    """
    edits: Spec = {}
    variables = [f"{name}={value}" for name, value in env]
    if variables:
        edits["env"] = variables
    real = dict(links)
    devices = [
        {"path": path, **({"hostPath": real[path]} if path in real else {}), "permissions": "rw"}
        for path in nodes
    ]
    if devices:  # an empty list counts as an empty edit
        edits["deviceNodes"] = devices
    written = [
        {
            "hostPath": mount.host_path,
            "containerPath": mount.container_path,
            "options": list(MOUNT_OPTIONS),
        }
        for mount in mounts
    ]
    if written:
        edits["mounts"] = written
    return edits


def _is_group(card: Card) -> bool:
    return card.name.startswith(_VFIO_FOLDER)


def holds(spec: Spec | None, card: Card) -> bool:
    """Return whether a valid spec, ours or foreign, gives a container the card under the card's name."""
    if spec is None or spec["kind"] != CDI_KIND:
        return False
    return any(
        node["path"] == card.path
        for device in spec["devices"]
        if device["name"] == device_name(card)
        for node in device["containerEdits"].get("deviceNodes") or ()
    )


def lacked(spec: Spec | None, devices: Iterable[Device]) -> list[Device]:
    """Return the devices that exist, or may exist, and that the spec does not hold."""
    return [each for each in devices if _counts(each) and not holds(spec, each.card)]


def _counts(device: Device) -> bool:
    return device.healthy or device.card.present


def offerable(
    judged: DeviceList, spec: Spec | None, reason_for: Callable[[str], str], otherwise: str
) -> DeviceList:
    """Return the list while `spec` is on disk: devices that containers would not get are Unhealthy.

    `reason_for` gives the reason by CDI name, empty for a device that containers get. `otherwise` is the
    reason for a device that the spec does not hold and `reason_for` does not know.
    """
    missing = {device.id for device in lacked(spec, judged.devices)}
    devices = []
    for each in judged.devices:
        reason = reason_for(device_name(each.card)) if _counts(each) else ""
        if each.id in missing:
            reason = reason or otherwise
        devices.append(each.because(reason) if reason else each)
    return attrs.evolve(judged, devices=tuple(devices))


def withheld(judged: DeviceList, offered: DeviceList) -> DeviceList:
    """Return the part of `judged` that may be offered before the disk agrees: no device gets better."""
    devices = []
    for each in judged.devices:
        before = offered.find(each.id)
        if not each.healthy:
            devices.append(each)
        elif before is not None:
            devices.append(each.because(*before.reasons))
    return attrs.evolve(judged, devices=tuple(devices))
