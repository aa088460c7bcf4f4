"""What of a change an operator would want to read: from before and after to a few lines."""

from collections.abc import Iterable

import attrs

from biren_plugin.core.model import Device, DeviceList, Inventory


@attrs.frozen
class Remark:
    """One line for the log."""

    text: str
    bad: bool = False
    """Whether somebody should do something."""


def remark_inventory(before: Inventory | None, after: Inventory) -> list[Remark]:
    """What is remarkable about the node as a whole; its devices are `remark_list`'s."""
    old = before if before is not None else Inventory()
    remarks = []
    if not after.lists and (
        before is None or old.lists or old.driver_loaded != after.driver_loaded
    ):
        remarks.append(Remark(_describe_empty(after), bad=True))
    remarks += [Remark(text, bad=True) for text in after.unsettled if text not in old.unsettled]
    remarks += [Remark(text, bad=True) for text in after.suspects if text not in old.suspects]
    remarks += [
        Remark(f"containers will lack {absent}: it is not on the node", bad=True)
        for absent in after.host.absent
        if absent not in old.host.absent
    ]
    return remarks


def _describe_empty(node: Inventory) -> str:
    match node.shows_groups, node.driver_loaded:
        case True, True:
            return (
                "no Biren function for VFIO in /sys/bus/pci/devices, neither bound to vfio-pci nor split "
                "by SR-IOV: waiting; see `lspci -nnkd 1ee0:` on the node"
            )
        case True, False:
            return "no /sys/bus/pci/devices: waiting; in a container: is the host's /sys mounted?"
        case False, True:
            return "no Biren card in /sys/class/biren: waiting; see `lspci -d 1ee0:` on the node"
        case _:
            return (
                "no /sys/class/biren: waiting for the driver; on the node: `modprobe biren`; "
                "in a container: is the host's /sys mounted?"
            )


def remark_list(before: DeviceList | None, after: DeviceList) -> list[Remark]:
    """What changed in a resource's devices."""
    old = {device.id: device for device in before.devices} if before is not None else {}
    new = {device.id: device for device in after.devices}
    remarks = []
    if came := [device for id_, device in new.items() if id_ not in old and device.healthy]:
        remarks.append(Remark(f"{after.resource}: found {_ids(came)}"))
    for id_, device in new.items():
        was_healthy = id_ in old and old[id_].healthy
        reasons = "; ".join(device.reasons)
        if not device.healthy and (id_ not in old or old[id_].reasons != device.reasons):
            remarks.append(Remark(f"{after.resource}: {id_} is Unhealthy: {reasons}", bad=True))
        elif device.healthy and id_ in old and not was_healthy:
            remarks.append(Remark(f"{after.resource}: {id_} is Healthy again"))
        known = old[id_].warnings if id_ in old else ()
        remarks += [
            Remark(f"{after.resource}: {id_}: {text}", bad=True)
            for text in device.warnings
            if text not in known
        ]
    if left := [device for id_, device in old.items() if id_ not in new]:
        remarks.append(Remark(f"{after.resource}: {_ids(left)} left the list"))
    return remarks


def _ids(devices: Iterable[Device]) -> str:
    ids = [device.id for device in devices]
    return f"{', '.join(ids)} ({len(ids)})" if len(ids) > 1 else ids[0]
