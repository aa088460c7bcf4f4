"""The root of the task tree: what looks at the node, what people look at, and what is served."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from biren_plugin import __version__
from biren_plugin.board import Board
from biren_plugin.core.cdi.spec import FILE_NAME
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import Counters, DaemonState
from biren_plugin.device_plugin.folder import INTERVAL as FOLDER_INTERVAL
from biren_plugin.device_plugin.folder import KubeletFolder, watch_kubelet_folder
from biren_plugin.device_plugin.serving import Serving
from biren_plugin.errors import FolderDead, NodeError
from biren_plugin.files.cdi_owner import CdiOwner
from biren_plugin.files.nfd_labels import publish_labels
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.host_paths import under
from biren_plugin.host.readers import reader_of
from biren_plugin.monitor.views import views_of
from biren_plugin.sources import holders, library
from biren_plugin.sources.holders import ask_holders
from biren_plugin.sources.library import query_library
from biren_plugin.sources.scan import scan_host
from biren_plugin.sources.survey import survey_node
from biren_plugin.supervise import keep_running, leaves

log = logging.getLogger(__name__)

LIBRARY_ROUNDS: Final = 5
"""Looks at sysfs for each round of the library."""

FOLDER_LOOP: Final = "kubelet-folder"
HOST_LOOP: Final = "host-scan"
LIBRARY_LOOP: Final = "library-scan"
HOLDERS_LOOP: Final = "pod-resources"
"""What the loops are called in logs, metrics and `/healthz`."""

Task = Callable[[], Awaitable[None]]


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
    name = signal.Signals(number).name
    log.info("stopping: %s", name, extra={"event": "stopping", "signal": name})
    stop()


async def run_daemon(settings: Settings) -> None:
    """Serves the node until cancelled. Raises an `ExceptionGroup` of `FolderDead` or of bugs."""
    log.info(
        "br-gpu-device-plugin %s; settings: %s", __version__, settings.differing(),
        extra={"event": "started", "version": __version__},
    )  # fmt: skip
    for flag, why in settings.without_effect().items():
        log.warning(
            "%s: without effect, %s", flag, why,
            extra={"event": "flag_without_effect", "flag": flag},
        )  # fmt: skip
    folder = Board[KubeletFolder]()
    state = DaemonState(
        Board[Observed](), Board[Inventory](), Counters(), {FOLDER_LOOP: FOLDER_INTERVAL}
    )
    dev = under(settings.host_root, "/dev")
    nodes = dev / ("vfio" if settings.container_runtime == "kata" else "biren")
    plugins = settings.device_plugin_dir
    with FolderEvents([dev, nodes]) as dev_bell, FolderEvents([plugins.parent, plugins]) as bell:
        async with trio.open_nursery() as nursery:
            turned = partial(state.counters.turned, FOLDER_LOOP)
            nursery.start_soon(watch_kubelet_folder, plugins, bell, folder, turned)
            for name, task in _sources(settings, dev_bell, state).items():
                nursery.start_soon(_keep, task, name, state.counters)
            for name, task in views_of(state, settings).items():
                nursery.start_soon(_keep, task, name, state.counters, _never)
            cdi = _cdi_owner(settings)
            state.cdi_file = cdi.on_disk if cdi is not None else None
            beside = _beside(settings, state, cdi)
            await Serving(plugins, folder, state, settings.placement, cdi, beside).run()


def _never() -> bool:
    """Whether it worked: what keeps a view from working is said once."""
    return False


async def _keep(
    task: Task, name: str, counters: Counters, worked: Callable[[], bool] = lambda: True
) -> None:
    on_failure = partial(counters.restarted, name)
    await keep_running(task, name, expected=(NodeError,), worked=worked, on_failure=on_failure)


def _sources(settings: Settings, bell: FolderEvents, state: DaemonState) -> dict[str, Task]:
    """What looks at the node, and the survey that makes one inventory of it."""
    observed, turned = state.observed, state.counters.turned
    sources: dict[str, Task] = {
        HOST_LOOP: partial(_scan, settings, bell, state),
        HOLDERS_LOOP: partial(
            ask_holders, settings.pod_resources_dir, observed, partial(turned, HOLDERS_LOOP)
        ),
        "survey": partial(survey_node, observed, state.inventory, settings.health_policy),
    }
    state.intervals |= {
        HOST_LOOP: settings.health_interval,
        HOLDERS_LOOP: holders.INTERVAL,
    }
    if settings.container_runtime == "runc":  # the library knows the driver's cards only
        interval = LIBRARY_ROUNDS * settings.health_interval
        sources[LIBRARY_LOOP] = partial(
            query_library,
            settings.host_root,
            observed,
            interval=interval,
            turned=partial(turned, LIBRARY_LOOP),
        )
        state.intervals[LIBRARY_LOOP] = max(interval, library.RETRY)
    return sources


def _cdi_owner(settings: Settings) -> CdiOwner | None:
    if not settings.cdi_feature:
        return None
    return CdiOwner(settings.cdi_dir / FILE_NAME, overwrite=settings.overwrite_cdi_config)


def _beside(settings: Settings, state: DaemonState, cdi: CdiOwner | None) -> list[Task]:
    """What is for the one instance that serves: one that stands by writes no file."""
    tasks: list[Task] = []
    if cdi is not None:
        tasks.append(partial(_keep, cdi.run, "cdi-file", state.counters))
    if settings.nfd_features_dir is not None:
        labels = partial(publish_labels, settings.nfd_features_dir, state.inventory, state.observed)
        tasks.append(partial(_keep, labels, "node-labels", state.counters, _never))
    return tasks


async def _scan(settings: Settings, bell: FolderEvents, state: DaemonState) -> None:
    await scan_host(
        reader_of(settings),
        bell,
        state.observed,
        interval=settings.health_interval,
        pulse=settings.pulse,
        turned=partial(state.counters.turned, HOST_LOOP),
    )
