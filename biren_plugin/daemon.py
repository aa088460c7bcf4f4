"""The root of the task tree: what looks at the node, and one supervised subtree for each resource."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from biren_plugin import __version__
from biren_plugin.board import Board
from biren_plugin.core.allocation import Placement
from biren_plugin.core.model import Card, Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.settings import Settings
from biren_plugin.errors import FolderDead, KubeletRestarted, NodeError
from biren_plugin.host.doorbell import Doorbell
from biren_plugin.host.feature_file import publish_labels
from biren_plugin.host.folder_lock import hold_folder
from biren_plugin.host.kubelet_folder import KubeletFolder, watch_kubelet_folder
from biren_plugin.host.library import query_library
from biren_plugin.host.pod_resources import ask_holders
from biren_plugin.host.reader import HostReader
from biren_plugin.host.rooted import under
from biren_plugin.host.scanner import Reader, scan_host
from biren_plugin.host.vfio import VfioReader
from biren_plugin.resource import ResourceMemory, run_resource
from biren_plugin.supervise import keep_running, leaves
from biren_plugin.survey import survey_node
from biren_plugin.wire.unix_grpc import FileIdentity

log = logging.getLogger(__name__)

LIBRARY_ROUNDS: Final = 5
"""Looks at sysfs for each round of the library."""


async def run_until_signal(settings: Settings) -> None:
    """The daemon as a process: SIGTERM or SIGINT ends it in good order, a second one at once.

    Raises `FolderDead`, and an `ExceptionGroup` of bugs.
    """
    dead: FolderDead | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, nursery.cancel_scope.cancel)
            await run_daemon(settings)
    except* FolderDead as group:
        dead = next(each for each in leaves(group) if isinstance(each, FolderDead))
    if dead is not None:
        raise dead


async def stop_on_signal(stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
    """Calls `stop` at the first SIGTERM or SIGINT; the second ends the process."""
    stopping = (signal.SIGTERM, signal.SIGINT)
    for each in stopping:
        # In force again once the receiver is closed; a container's first process heeds no SIG_DFL.
        signal.signal(each, lambda number, _frame: os._exit(128 + number))
    with trio.open_signal_receiver(*stopping) as signals:
        task_status.started()
        number = await anext(aiter(signals))
    log.info("stopping: %s", signal.Signals(number).name)
    stop()


async def run_daemon(settings: Settings) -> None:
    """Serves the node until cancelled. Raises an `ExceptionGroup` of `FolderDead` or of bugs."""
    log.info("br-gpu-device-plugin %s; settings: %s", __version__, settings.differing())
    for flag in settings.not_yet():
        log.warning("%s is taken, but this version does not act on it yet", flag)
    folder = Board[KubeletFolder]()
    observed = Board[Observed]()
    inventory = Board[Inventory]()
    dev = under(settings.host_root, "/dev")
    plugins = settings.device_plugin_dir
    kata = settings.container_runtime == "kata"
    if flags := settings.without_effect():
        log.warning(
            "%s: without effect for kata, a virtual machine has its own driver", ", ".join(flags)
        )
    nodes = dev / ("vfio" if kata else "biren")
    with Doorbell([dev, nodes]) as dev_bell, Doorbell([plugins.parent, plugins]) as bell:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_kubelet_folder, plugins, bell, folder)
            sources = {
                "looking at the host": partial(_scan, settings, dev_bell, observed),
                "asking the kubelet who holds what": partial(
                    ask_holders, settings.pod_resources_dir, observed
                ),
                "the survey": partial(survey_node, observed, inventory, settings.health_policy),
            }
            if not kata:  # the library knows the driver's cards only
                sources["asking the library"] = partial(
                    query_library,
                    settings.host_root,
                    observed,
                    interval=LIBRARY_ROUNDS * settings.health_interval,
                )
            for name, source in sources.items():
                nursery.start_soon(partial(keep_running, source, name, expected=(NodeError,)))
            labels = None
            if (features := settings.nfd_features_dir) is not None:
                labels = partial(publish_labels, features, inventory, observed)
            await _serve_folder(plugins, folder, inventory, settings.placement, labels)


async def _scan(settings: Settings, bell: Doorbell, observed: Board[Observed]) -> None:
    reader: Reader[Card]
    if settings.container_runtime == "kata":
        reader = VfioReader(settings.host_root)
    else:
        reader = HostReader(
            settings.host_root,
            mount_host_path=settings.mount_host_path,
            mount_dri_device=settings.mount_dri_device,
        )
    await scan_host(reader, bell, observed, interval=settings.health_interval, pulse=settings.pulse)


async def _serve_folder(
    path: Path,
    folder: Board[KubeletFolder],
    inventory: Board[Inventory],
    placement: Placement,
    labels: Callable[[], Awaitable[None]] | None,
) -> None:
    """Serves the kubelet's folder whenever no other instance does, and moves over to a new one.

    `labels` publishes the node's labels, which is for the one instance that serves.
    """
    while True:
        with await hold_folder(path, folder) as held:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run_resources, path, nursery, folder, inventory, placement)
                if labels is not None:
                    # Never said to have worked: what keeps the file from being written is said once.
                    publish = partial(keep_running, worked=lambda: False, expected=(NodeError,))
                    nursery.start_soon(publish, labels, "labelling the node")
                await held.until_replaced(folder)
                log.warning("%s was removed or made anew: starting over in it", path)
                nursery.cancel_scope.cancel()


async def _run_resources(
    path: Path,
    nursery: trio.Nursery,
    folder: Board[KubeletFolder],
    inventory: Board[Inventory],
    placement: Placement,
) -> None:
    """A subtree for each resource that the node has, for as long as it has it."""
    running: dict[str, trio.CancelScope] = {}
    with inventory.subscribe() as inventories:
        async for current in inventories:
            wanted = {devices.resource for devices in current.lists}
            for resource in running.keys() - wanted:
                running.pop(resource).cancel()
                log.info("%s: the node has none any more", resource)
            for resource in sorted(wanted - running.keys()):
                running[resource] = trio.CancelScope()
                nursery.start_soon(
                    _run_resource, resource, running[resource], path, folder, inventory, placement
                )


async def _run_resource(
    resource: str,
    scope: trio.CancelScope,
    path: Path,
    folder: Board[KubeletFolder],
    inventory: Board[Inventory],
    placement: Placement,
) -> None:
    memory = ResourceMemory()
    kubelet: FileIdentity | None = None

    async def live() -> None:
        nonlocal kubelet
        kubelet = folder.latest.kubelet if folder.latest is not None else None
        await run_resource(resource, path, folder, inventory, memory, placement)

    async def kubelet_changed() -> None:
        await folder.wait_for(lambda seen: seen.kubelet not in (None, kubelet))

    with scope:
        await keep_running(
            live,
            resource,
            expected=(NodeError,),
            at_once=(KubeletRestarted,),
            sooner=kubelet_changed,
            worked=lambda: bool(memory.registered.latest),
        )
