"""One resource's subtree: its start order, nothing else."""

from functools import partial
from pathlib import Path

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.cdi.spec import names_for
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.placement.choose import Placement
from biren_plugin.core.rivals import RivalWatch
from biren_plugin.daemon_state import Counters
from biren_plugin.device_plugin.cdi_writer import write_cdi_spec
from biren_plugin.device_plugin.counting import CountedPlugin
from biren_plugin.device_plugin.folder import KubeletFolder, socket_name
from biren_plugin.device_plugin.judge import probe_health
from biren_plugin.device_plugin.registration import notice_restart, stay_registered
from biren_plugin.device_plugin.server import DevicePlugin, serve_plugin
from biren_plugin.device_plugin.streams import Streams
from biren_plugin.device_plugin.watch import watch_devices
from biren_plugin.errors import StartTooSlow
from biren_plugin.files.cdi_owner import CdiOwner

_START_DEADLINE = 10.0


@attrs.frozen
class ResourceMemory:
    """What outlives each life of a resource's subtree; belongs to whoever starts the next."""

    offered: Board[DeviceList] = attrs.Factory(Board)
    """What the kubelet was told last."""
    judged: Board[DeviceList] = attrs.Factory(Board)
    """The last list before CDI had a say, if it has one."""
    registered: Board[bool] = attrs.Factory(Board)
    """Whether the kubelet took the registration and watches."""
    rivals: RivalWatch = attrs.Factory(RivalWatch)
    counters: Counters = attrs.Factory(Counters)


async def run_resource(
    resource: str,
    folder_path: Path,
    folder: Board[KubeletFolder],
    inventory: Board[Inventory],
    memory: ResourceMemory,
    placement: Placement,
    cdi: CdiOwner | None = None,
) -> None:
    """One life of a resource: ends only by failing or being cancelled.

    `cdi` owns the node's CDI file; None: containers get nodes and mounts instead of CDI names.
    """
    memory.registered.post(False)
    socket = folder_path / socket_name(resource)
    streams = Board[Streams]()
    counters = memory.counters
    sent = partial(counters.list_sent, resource)
    watch = partial(watch_devices, memory.offered, streams, sent)
    answer = edits_for if cdi is None else names_for
    plugin = DevicePlugin(memory.offered, inventory, watch, placement, answer)
    counted = CountedPlugin(plugin, resource, counters)
    judged = memory.offered if cdi is None else memory.judged
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(_START_DEADLINE) as starting:
            await nursery.start(probe_health, resource, inventory, judged)
            if cdi is not None:
                await nursery.start(write_cdi_spec, judged, cdi, memory.offered)
            identity = await nursery.start(serve_plugin, socket, counted)
        if starting.cancelled_caught:
            raise StartTooSlow(f"{resource} did not start in {_START_DEADLINE:g} s")
        nursery.start_soon(notice_restart, socket, identity, folder)
        nursery.start_soon(
            stay_registered,
            resource,
            socket,
            identity,
            folder,
            streams,
            memory.registered,
            memory.rivals,
            partial(counters.registered, resource),
        )
