"""`status`: the running daemon's state, as the one document that its socket sends."""

import os
import time
from datetime import UTC, datetime
from typing import Any

from biren_plugin import __version__
from biren_plugin.core.inventory.held_cards import holder_of
from biren_plugin.core.model import Device, DeviceList
from biren_plugin.core.observed import NO_CLAIMS, ClaimsSeen, Holder, Observed
from biren_plugin.daemon_state import DaemonState, DriverState, HamiState


def status_document(state: DaemonState) -> dict[str, Any]:
    """Return the document of schema/status.schema.json."""
    inventory = state.sent_inventory()
    observed = state.observed.latest or Observed()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "time": _timestamp(time.time()),
        "role": state.role,
        "driver_loaded": inventory.driver_loaded,
        "holders_known": observed.holders is not None,
        "problems": [
            *state.stuck(),
            *state.unready(),
            *inventory.unsettled,
            *inventory.unmatched,
            *inventory.suspects,
            *(state.hami.problems() if state.hami is not None else ()),
        ],
        "resources": [
            _resource(each, state, observed) for each in (*inventory.lists, *state.monitored())
        ],
        "probes": [
            {"name": name, "mode": each.mode, "by": each.by or None}
            for name, each in state.probes.items()
        ],
        "excluded": [
            {
                "card": each.device.id,
                "resource": each.device.resource,
                "pci_address": each.device.card.pci_address,
                "by": each.word,
            }
            for each in inventory.excluded
        ],
        "dra": None if state.driver is None else _driver(state.driver),
        "claims": _claims(observed.claims or NO_CLAIMS),
        "hami": None if state.hami is None else _hami(state.hami),
    }


def _driver(driver: DriverState) -> dict[str, Any]:
    return {
        "registered": driver.registered,
        "refusal": driver.refusal or None,
        "used_services": list(driver.used),
        "wanted_devices": driver.wanted,
        "stored_devices": driver.stored,
        "trouble": driver.trouble or None,
        "forbidden": list(driver.forbidden),
        "dropped_fields": list(driver.dropped),
    }


def _claims(claims: ClaimsSeen) -> list[dict[str, Any]]:
    found = []
    for uid in sorted(claims.files.keys() | claims.believed.keys()):
        use = claims.believed.get(uid)
        found.append(
            {
                "uid": uid,
                "claim": {"namespace": use.namespace, "name": use.name}
                if use is not None
                else None,
                "pod": {"namespace": use.pod.namespace, "name": use.pod.pod}
                if use is not None
                else None,
                "devices": [each.device for each in claims.devices_of(uid)],
                "has_file": bool(uid in claims.files and claims.files[uid].devices),
            }
        )
    return found


def _hami(hami: HamiState) -> dict[str, Any]:
    return {
        "registered": hami.registered,
        "last_report": _timestamp(hami.reported),
        "locked_for": hami.lock or None,
        "trouble": hami.trouble or None,
        "mismatches": list(hami.mismatches),
    }


def _resource(devices: DeviceList, state: DaemonState, observed: Observed) -> dict[str, Any]:
    resource = devices.resource
    return {
        "resource": resource,
        "registered": state.is_registered(resource),
        "last_list": _timestamp(state.counters.lists_sent.get(resource)),
        "devices": [
            _device(
                each,
                state.health_times.since(each),
                holder_of(each, observed),
            )
            for each in devices.devices
        ],
    }


def _device(device: Device, since: float | None, holder: Holder | None) -> dict[str, Any]:
    return {
        "card": device.id,
        "healthy": device.healthy,
        "since": _timestamp(since),
        "faults": list(device.faults),
        "reasons": list(device.reasons),
        "warnings": list(device.warnings),
        "product": device.card.called,
        "physical_gpu": device.card.physical_id,
        "pci_address": device.card.pci_address,
        "numa_node": device.card.numa_node,
        "holder": None
        if holder is None
        else {
            "namespace": holder.namespace,
            "pod": holder.pod,
            "container": holder.container,
        },
    }


def _timestamp(seconds: float | None) -> str | None:
    """Return seconds since 1970 as `2026-03-01T03:12:45Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
