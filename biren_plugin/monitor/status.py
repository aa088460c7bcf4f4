"""The running daemon's state, and the local socket that reports it: each permitted peer gets one document.

1. The directory has mode 0700 and the socket in it 0600; their owner is root, or the daemon's own user.
2. The newest daemon has the socket: it replaces the file, and an older daemon that ends does not remove
   it. When the newer daemon has gone, the older one listens again within `LOOK_INTERVAL`.
3. Nothing is read from the peer; a peer that does not read loses the connection after `DEADLINE`.
"""

import json
import os
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from biren_plugin import __version__
from biren_plugin.core.inventory.held_cards import holder_of
from biren_plugin.core.model import Device, DeviceList
from biren_plugin.core.observed import NO_CLAIMS, ClaimsSeen, Holder, Observed
from biren_plugin.core.setting_field import STATUS_SOCKET
from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import SocketUnusable, why_unwritable
from biren_plugin.notice import say_bug
from biren_plugin.shared_wakeups import until_wakeup
from biren_plugin.unix_sockets import FileIdentity, UnixListener, is_served, listen
from biren_plugin.worker_thread import WorkerThread

if TYPE_CHECKING:
    from biren_plugin.core.dra.driver_state import DriverState
    from biren_plugin.core.event_objects import NodeEventsState
    from biren_plugin.core.hami.hami_state import HamiState


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
            # Of an instance that stands by, they cost nothing: the metrics' address is the other's.
            *(state.troubles.values() if state.role != "standing by" else ()),
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
        "node_events": None if state.node_events is None else _node_events(state.node_events),
    }


def _driver(driver: "DriverState") -> dict[str, Any]:
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


def _node_events(events: "NodeEventsState") -> dict[str, Any]:
    return {
        "written": events.written,
        "dropped": events.dropped,
        "trouble": events.trouble or None,
    }


def _hami(hami: "HamiState") -> dict[str, Any]:
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


LOOK_INTERVAL: Final = 10.0
ASK_DEADLINE: Final = 0.5
DEADLINE: Final = 5.0
"""Seconds."""
CONNECTIONS: Final = 8


async def serve_status(folder: Path, state: DaemonState) -> None:
    """Serve until cancelled. Raises `SocketUnusable` and `NoThread`."""
    room = trio.CapacityLimiter(CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        with trio.move_on_after(DEADLINE):
            async with stream:
                if room.available_tokens < 1:
                    return
                try:
                    async with room:
                        # If it was never asked, the daemon has just started.
                        if state.kubelet_view.latest is not None:
                            await state.ask_kubelet(ASK_DEADLINE)
                        document = json.dumps(status_document(state), ensure_ascii=False)
                        # A byte of a file's name that is not UTF-8 becomes an escape of JSON.
                        await stream.send_all(document.encode(errors="backslashreplace") + b"\n")
                except trio.BrokenResourceError:
                    return  # the peer has left
                except Exception as error:  # noqa: BLE001 - a bug here must not end the daemon
                    say_bug("the status failed on a bug of the plugin", error, "status")

    thread = WorkerThread()
    while True:
        listener = await _listen(folder, thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            await _until_nobody_serves(listener, thread)
            nursery.cancel_scope.cancel()


async def _listen(folder: Path, thread: WorkerThread) -> UnixListener:
    try:
        return await listen(folder / STATUS_SOCKET, thread, before=partial(_make_private, folder))
    except OSError as error:
        why = why_unwritable(folder / STATUS_SOCKET, error, "--status-dir")
        raise SocketUnusable(f"`status` cannot be answered: {why}") from error


def _make_private(folder: Path) -> None:
    """Create the directory if it is missing. Blocks. Raises `OSError`."""
    # Not its parents: after a typing error they would be new.
    folder.mkdir(mode=0o700, exist_ok=True)
    if set(os.listdir(folder)) <= {STATUS_SOCKET}:  # a directory with other files keeps its mode
        folder.chmod(0o700)  # needed when it is mounted into the container


async def _until_nobody_serves(ours: UnixListener, thread: WorkerThread) -> None:
    """Return when our file is gone, or when another instance's file has no listener any more."""
    find = partial(FileIdentity.of, ours.path, ours.identity)
    while True:
        await trio.sleep(until_wakeup(LOOK_INTERVAL))
        there = await thread.run_or(find, otherwise=ours.identity)
        if there == ours.identity:
            continue
        if there is None or not await is_served(ours.path, thread):
            return
