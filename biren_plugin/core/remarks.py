"""What of a change an operator would want to read: from before and after to a few lines."""

from collections.abc import Iterable, Mapping

import attrs

from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.vendor import MINIMUM_DRIVER
from biren_plugin.core.parse.versions import driver_suffices


@attrs.frozen
class Remark:
    """One line for the log."""

    event: str
    """Its stable name."""
    text: str
    bad: bool = False
    """Whether somebody should do something."""
    fields: Mapping[str, str | tuple[str, ...]] = attrs.field(factory=dict, eq=False)
    """What it is about."""


def remark_inventory(before: Inventory | None, after: Inventory) -> list[Remark]:
    """What is remarkable about the node as a whole; its devices are `remark_list`'s."""
    old = before if before is not None else Inventory()
    remarks = []
    was_empty = before is not None and not (old.lists or old.found)
    if not (after.lists or after.found) and (
        not was_empty or old.driver_loaded != after.driver_loaded
    ):
        remarks.append(_remark_empty(after))
    remarks += [
        Remark("gpu_unsettled", text, bad=True, fields={"reason": text})
        for text in after.unsettled
        if text not in old.unsettled
    ]
    remarks += [
        Remark("probe_suspect", text, bad=True, fields={"reason": text})
        for text in after.suspects
        if text not in old.suspects
    ]
    remarks += [
        Remark(
            "file_missing",
            f"containers will lack {absent}: {after.host.why_absent(absent)}",
            bad=True,
            fields={"what": absent},
        )
        for absent in after.host.absent
        if absent not in old.host.absent
    ]
    return remarks


def _remark_empty(node: Inventory) -> Remark:
    match node.shows_groups, node.driver_loaded:
        case True, True:
            return Remark(
                "cards_missing",
                "no Biren function for VFIO in /sys/bus/pci/devices, neither bound to vfio-pci nor split "
                f"by SR-IOV: waiting; see `{vendor.LSPCI_DRIVERS}` on the node",
                bad=True,
            )
        case True, False:
            return Remark(
                "driver_missing",
                "no /sys/bus/pci/devices: waiting; in a container: is the host's /sys mounted?",
                bad=True,
            )
        case False, True:
            return Remark(
                "cards_missing",
                f"no Biren card in {vendor.CLASS_FOLDER}: waiting; see `{vendor.LSPCI}` on the node",
                bad=True,
            )
        case _:
            return Remark(
                "driver_missing",
                f"no {vendor.CLASS_FOLDER}: waiting for the driver; on the node: `{vendor.MODPROBE}`; "
                "in a container: is the host's /sys mounted?",
                bad=True,
            )


def remark_driver(before: str | None, after: str | None) -> list[Remark]:
    """What is remarkable about the driver's version, once for each version."""
    if after is None or after == before or driver_suffices(after) is not False:
        return []
    least = ".".join(map(str, MINIMUM_DRIVER))
    text = f"driver {after} is too old: containers may fail on it; install {least} or newer"
    return [Remark("driver_too_old", text, bad=True, fields={"version": after})]


def remark_list(before: DeviceList | None, after: DeviceList) -> list[Remark]:
    """What changed in a resource's devices."""
    old = {device.id: device for device in before.devices} if before is not None else {}
    new = {device.id: device for device in after.devices}
    remarks = []

    def remark(
        event: str, text: str, *, bad: bool = False, **fields: str | tuple[str, ...]
    ) -> None:
        fields = {"resource": after.resource, **fields}
        remarks.append(Remark(event, f"{after.resource}: {text}", bad, fields))

    if came := [device for id_, device in new.items() if id_ not in old and device.healthy]:
        remark("devices_found", f"found {_ids(came)}", cards=tuple(device.id for device in came))
    for id_, device in new.items():
        was_healthy = id_ in old and old[id_].healthy
        reasons = "; ".join(device.reasons)
        if not device.healthy and (id_ not in old or old[id_].reasons != device.reasons):
            text = f"{id_} is Unhealthy: {reasons}"
            remark("device_unhealthy", text, bad=True, card=id_, reason=reasons)
        elif device.healthy and id_ in old and not was_healthy:
            remark("device_healthy", f"{id_} is Healthy again", card=id_)
        known = old[id_].warnings if id_ in old else ()
        for text in device.warnings:
            if text not in known:
                remark("device_warning", f"{id_}: {text}", bad=True, card=id_, reason=text)
    if left := [device for id_, device in old.items() if id_ not in new]:
        remark(
            "devices_left", f"{_ids(left)} left the list", cards=tuple(device.id for device in left)
        )
    return remarks


def _ids(devices: Iterable[Device]) -> str:
    ids = [device.id for device in devices]
    return f"{', '.join(ids)} ({len(ids)})" if len(ids) > 1 else ids[0]
