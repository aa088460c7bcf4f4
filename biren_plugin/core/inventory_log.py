"""The log lines about a change of the inventory: what an operator wants to know, in a few lines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from biren_plugin.core.card_names import alike, by_number, shorten_names
from biren_plugin.core.inventory.gpu_grouping import names_of_card
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.vendor import MINIMUM_DRIVER, driver_suffices
from biren_plugin.records import frozen

_BAD: Final = frozenset({"device_unhealthy", "device_warning"})
"""Events that need action."""


@frozen
class Remark:
    """One line for the log."""

    event: str
    """The event's stable name."""
    text: str
    bad: bool = False
    """Whether the remark needs action."""
    fields: Mapping[str, str | tuple[str, ...]] = attrs.field(factory=dict, eq=False)
    """The event's fields."""


def remark_inventory(before: Inventory | None, after: Inventory) -> list[Remark]:
    """Return remarks about the node as a whole; `remark_lists` has those about its devices."""
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
    if old.unsettled and not after.unsettled:
        remarks.append(Remark("gpu_settled", "no split of a GPU is under way any more"))
    remarks += [
        Remark(
            "card_excluded",
            f"{each.device.id} is excluded by --exclude {each.word}, and not offered",
            fields={"card": each.device.id},
        )
        for each in after.excluded
        if (each.device.id, each.word) not in {(one.device.id, one.word) for one in old.excluded}
    ]
    remarks += [
        Remark("exclude_unmatched", text, bad=True, fields={"reason": text})
        for text in after.unmatched
        if text not in old.unmatched
    ]
    remarks += [
        Remark("probe_suspect", text, bad=True, fields={"reason": text})
        for text in after.suspects
        if text not in old.suspects
    ]
    if old.suspects and not after.suspects:
        text = "no probe condemns every card any more: each counts again"
        remarks.append(Remark("suspects_cleared", text))
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
    remarks += [
        Remark("file_found", f"containers get {found} again", fields={"what": found})
        for found in old.host.absent
        if found not in after.host.absent
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
    """Return a remark about a driver that is too old, once for each version, and about its replacement."""
    if after is None or after == before:
        return []
    if driver_suffices(after) is not False:
        was_too_old = before is not None and driver_suffices(before) is False
        text = f"driver {after} is new enough"
        return [Remark("driver_new_enough", text, fields={"version": after})] if was_too_old else []
    least = ".".join(map(str, MINIMUM_DRIVER))
    text = f"driver {after} is too old: containers may fail on it; install {least} or newer"
    return [Remark("driver_too_old", text, bad=True, fields={"version": after})]


def remark_lists(before: Iterable[DeviceList], after: Iterable[DeviceList]) -> list[Remark]:
    """Return remarks about devices: one for all with the same change, whatever their resources."""
    old = _devices_of(before)
    new = _devices_of(after)
    remarks = []
    for _, same in _by_resource(d for key, d in new.items() if key not in old and d.healthy):
        remarks.append(_remark("devices_found", same, f"found {names_of(same)}"))
    changed = [
        device
        for key, device in new.items()
        if not device.healthy and (key not in old or old[key].reasons != device.reasons)
    ]
    for devices, reason in alike(_named(device, "; ".join(device.reasons)) for device in changed):
        names, are = names_of(devices), "is" if len(devices) == 1 else "are"
        if devices[0].recovering:
            rest = reason.removeprefix("it ")
            if len(devices) > 1:
                rest = rest.replace("has recovered and returns", "have recovered and return", 1)
            remarks.append(_remark("device_recovering", devices, f"{names} {rest}", reason))
        else:
            text = f"{names} {are} Unhealthy: {reason}"
            remarks.append(_remark("device_unhealthy", devices, text, reason))
    again = [
        device
        for key, device in new.items()
        if device.healthy and key in old and not old[key].healthy
    ]
    if again:
        are = "is" if len(again) == 1 else "are"
        remarks.append(_remark("device_healthy", again, f"{names_of(again)} {are} Healthy again"))
    for devices, reason in alike(
        _named(device, text)
        for key, device in new.items()
        for text in device.warnings
        if key not in old or text not in old[key].warnings
    ):
        text = f"{names_of(devices)}: {reason}"
        remarks.append(_remark("device_warning", devices, text, reason))
    for devices, reason in alike(
        _named(device, "; ".join(old[key].warnings))
        for key, device in new.items()
        if key in old and old[key].warnings and not device.warnings
    ):
        text = f"{names_of(devices)}: no warning any more (was: {reason})"
        remarks.append(_remark("warning_cleared", devices, text, reason))
    for _, same in _by_resource(device for key, device in old.items() if key not in new):
        remarks.append(_remark("devices_left", same, f"{names_of(same)} left the list"))
    return remarks


def _devices_of(lists: Iterable[DeviceList]) -> dict[tuple[str, str], Device]:
    """By resource and id; in the order of card numbers, whatever the resource."""
    devices = [device for each in lists for device in each.devices]
    devices.sort(key=lambda device: by_number(device.id))
    return {(device.resource, device.id): device for device in devices}


def _by_resource(devices: Iterable[Device]) -> list[tuple[str, list[Device]]]:
    groups: dict[str, list[Device]] = {}
    for device in devices:
        groups.setdefault(device.resource, []).append(device)
    return sorted(groups.items())


def _remark(event: str, devices: Sequence[Device], text: str, reason: str = "") -> Remark:
    resources = tuple(name for name, _ in _by_resource(devices))
    ids = tuple(device.id for device in devices)
    about: dict[str, str | tuple[str, ...]] = {}
    about |= {"resource": resources[0]} if len(resources) == 1 else {"resources": resources}
    about |= {"card": ids[0]} if len(ids) == 1 else {"cards": ids}
    about |= {"reason": reason} if reason else {}
    return Remark(event, f"{', '.join(resources)}: {text}", event in _BAD, about)


def _named(device: Device, text: str) -> tuple[Device, Iterable[str | None], str]:
    return device, names_of_card(device.card), text


def names_of(devices: Iterable[Device]) -> str:
    """Return `card_0, card_2 (2)` or `card_0 to card_7 (8)`."""
    return shorten_names([device.id for device in devices])
