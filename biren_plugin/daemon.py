"""The root of the task tree: loops that observe the node and show it, then what offers its cards."""

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from biren_plugin import __version__
from biren_plugin.board import Board
from biren_plugin.core.parse.vendor import CDI_FILE, NAMES_IN_DEV
from biren_plugin.core.settings import Settings
from biren_plugin.core.useless_settings import without_effect
from biren_plugin.daemon_state import DaemonState, follow_health
from biren_plugin.device_plugin.kubelet_folder import INTERVAL as FOLDER_INTERVAL
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder, watch_kubelet_folder
from biren_plugin.device_plugin.node import Node
from biren_plugin.device_plugin.serving import Serving
from biren_plugin.errors import (
    ENOUGH_DESCRIPTORS,
    MORE_DESCRIPTORS,
    FolderDead,
    NodeError,
    is_limit,
)
from biren_plugin.files.claim_reading import read_claim_files
from biren_plugin.host.config_directory import DEFAULT_FILE, own_file_of, settings_file_of
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.host_paths import under
from biren_plugin.host.readers import node_folder_of, reader_of
from biren_plugin.last_calls import PATIENCE, LastCalls
from biren_plugin.monitor.standard_error import exit_at_once
from biren_plugin.monitor.status import serve_status
from biren_plugin.notice import WARNING, say
from biren_plugin.records import frozen
from biren_plugin.signals import STOPPING, ignore_stray
from biren_plugin.sources.holders import INTERVAL as HOLDERS_INTERVAL
from biren_plugin.sources.holders import ask_holders
from biren_plugin.sources.library import RETRY as LIBRARY_RETRY
from biren_plugin.sources.library import query_library
from biren_plugin.sources.scan import scan_host
from biren_plugin.sources.survey import survey_node
from biren_plugin.supervise import flatten, keep_running
from biren_plugin.worker_thread import LEAVE_DEADLINE, WorkerThread
from biren_plugin.worker_thread import PATIENCE as CALL_PATIENCE

if TYPE_CHECKING:
    from biren_plugin.files.cdi_owner import CdiOwner
    from biren_plugin.hami.hami_mode import HamiMode

LIBRARY_ROUNDS: Final = 5
"""Scans of sysfs for each round of the library."""
STEADY: Final = CALL_PATIENCE + LEAVE_DEADLINE + 1.0
"""Seconds without a failure after which a loop counts as recovered: longer than a hanging disk takes to fail it."""


@frozen
class Loop:
    """One task of the root, kept running for as long as the daemon lives."""

    name: str
    """The name in the log, in metrics and in `/healthz`."""
    run: Callable[..., Awaitable[None]]
    """Called with `on_turn` if it has an interval."""
    interval: float | None = None
    """Seconds between turns: a loop without a turn for long is stuck. None: the loop makes no turns."""
    is_vital: bool = True
    """Whether cards depend on the loop; if not, the same failure is logged once."""

    async def keep(self, state: DaemonState) -> None:
        """Run the task, again whenever it fails; what it fails on is one of the state's troubles meanwhile.

        Raises an `ExceptionGroup` of bugs when there were too many.
        """
        run = self.run
        if self.interval is not None:
            run = partial(run, on_turn=partial(state.counters.turned, self.name))
        await keep_running(
            run,
            self.name,
            expected=(NodeError,),
            is_working=lambda: self.is_vital,
            on_failure=partial(state.counters.restarted, self.name),
            steady=STEADY,
            notice=state.notice_of(self.name, f"{self.name}: "),
        )


async def run_daemon(settings: Settings, last_calls: LastCalls | None = None) -> None:
    """Serve the node until cancelled; `last_calls` counts the calls to wait for before.

    Raises an `ExceptionGroup` of `FolderDead` or of bugs.
    """
    _log_start(settings)
    state = DaemonState(probes=settings.health_policy.modes, last_calls=last_calls or LastCalls())
    observed, inventory = state.observed, state.inventory
    folder = Board[KubeletFolder]()
    plugins = settings.device_plugin_dir
    cdi = _cdi_owner(settings, state)
    state.cdi_file = cdi.on_disk if cdi is not None else None
    dev = under(settings.host_root, "/dev")
    nodes = under(settings.host_root, node_folder_of(settings))
    with (
        FolderEvents([dev, nodes], {dev: NAMES_IN_DEV}) as dev_events,
        FolderEvents([plugins.parent, plugins]) as events,
    ):
        scan = partial(
            scan_host, reader_of(settings), dev_events, observed, state.notice_of("host"),
            interval=settings.health_interval, pulse=settings.pulse,
        )  # fmt: skip
        ask = partial(
            ask_holders, settings.pod_resources_dir, observed, state.kubelet_view, state.doubts, state.holding,
            partial(WorkerThread().run, partial(read_claim_files, settings.claim_cdi_dir)),
        )  # fmt: skip
        survey = partial(
            survey_node, observed, inventory, settings.health_policy, settings.exclude,
            claims_count=settings.offer_by != "dra",
        )  # fmt: skip
        # DRA needs no socket in this directory, only the lock.
        missing = None if settings.offer_by == "dra" else state.notice_of("kubelet")
        loops = (
            Loop(
                "kubelet-folder",
                partial(watch_kubelet_folder, plugins, events, folder, missing),
                FOLDER_INTERVAL,
            ),
            Loop("host-scan", scan, settings.health_interval),
            *_library_loop(settings, state),
            Loop("pod-resources", ask, HOLDERS_INTERVAL),
            Loop("survey", survey),
            Loop("health-times", partial(follow_health, state), is_vital=False),
            Loop("status", partial(serve_status, settings.status_dir, state), is_vital=False),
            *_metrics_loop(settings, state),
            *_cdi_loop(cdi),
            *_settings_loop(settings, state),
        )
        state.intervals = {each.name: each.interval for each in loops if each.interval is not None}
        hami = _hami_mode(settings, state)
        scheduler = hami.cards if hami is not None else None
        visible = "none" if settings.offers_groups else settings.visible_devices
        monitoring = settings.monitoring_resource and not settings.offers_groups
        node = Node(plugins, folder, state, settings.placement, visible, monitoring, cdi, scheduler)
        # only in the serving instance
        loops_beside = (
            *_labels_loop(settings, state),
            *_hami_loop(hami),
            *_node_events_loop(settings, state),
        )
        beside = [partial(each.keep, state) for each in loops_beside]
        async with trio.open_nursery() as nursery:
            for loop in loops:
                nursery.start_soon(loop.keep, state)
            if settings.offer_by == "dra":
                from biren_plugin.dra.offering import offer_by_dra  # the API client: h11, TLS

                await offer_by_dra(settings, state, folder, beside)
            else:
                await Serving(node, beside).run()


def _library_loop(settings: Settings, state: DaemonState) -> Iterator[Loop]:
    if settings.container_runtime == "runc":  # the library only knows the driver's cards
        interval = LIBRARY_ROUNDS * settings.health_interval
        query = partial(query_library, settings.host_root, state.observed, interval=interval)
        yield Loop("library-scan", query, max(interval, LIBRARY_RETRY))


def _metrics_loop(settings: Settings, state: DaemonState) -> Iterator[Loop]:
    if settings.metrics_address:
        from biren_plugin.monitor.http import serve_endpoint  # h11 and prometheus: 3 MiB

        serve = partial(serve_endpoint, *settings.metrics_host_and_port(), state)
        yield Loop("metrics", serve, is_vital=False)


def _cdi_loop(cdi: "CdiOwner | None") -> Iterator[Loop]:
    if cdi is not None:
        yield Loop("cdi-file", cdi.run)


def _labels_loop(settings: Settings, state: DaemonState) -> Iterator[Loop]:
    if settings.nfd_features_dir is not None:
        from biren_plugin.files.nfd_labels import publish_labels  # a millisecond of each start

        publish = partial(
            publish_labels, settings.nfd_features_dir, state.inventory, state.observed,
            state.notice_of("labels"),
        )  # fmt: skip
        yield Loop("node-labels", publish, is_vital=False)


def _hami_mode(settings: Settings, state: DaemonState) -> "HamiMode | None":
    if not settings.hami:
        return None
    from biren_plugin.hami.hami_mode import HamiMode  # the API client: h11, TLS

    return HamiMode(settings, state)


def _hami_loop(hami: "HamiMode | None") -> Iterator[Loop]:
    if hami is not None:
        yield Loop("hami", hami.run, is_vital=False)


def _node_events_loop(settings: Settings, state: DaemonState) -> Iterator[Loop]:
    if settings.hami or settings.offer_by == "dra":
        from biren_plugin.cluster.credentials import load_from  # the API client: h11, TLS
        from biren_plugin.cluster.node_events import NodeEvents
        from biren_plugin.core.event_objects import NodeEventsState

        state.node_events = NodeEventsState()
        load = load_from(settings.kubeconfig)
        events = NodeEvents(load, settings.node_name, state.inventory, state.node_events)
        yield Loop("node-events", events.run, is_vital=False)


def _settings_loop(settings: Settings, state: DaemonState) -> Iterator[Loop]:
    if settings.file is not None:
        from biren_plugin.monitor.settings_watch import SettingsWatch

        watch = SettingsWatch(_file_choice(settings), state.notice_of("settings-file"))
        yield Loop("settings-file", watch.run, is_vital=False)


def _file_choice(settings: Settings) -> Callable[[], Path]:
    """Return what finds the settings file that a daemon which starts now would read."""
    file = settings.file
    assert file is not None
    if file.chosen_from is None:
        return lambda: file.path
    return partial(settings_file_of, file.chosen_from, settings.node_name)


def _cdi_owner(settings: Settings, state: DaemonState) -> "CdiOwner | None":
    if not settings.cdi_feature:
        return None
    from biren_plugin.files.cdi_owner import CdiOwner  # a millisecond of each start

    return CdiOwner(
        settings.cdi_dir / CDI_FILE,
        overwrite=settings.overwrite_cdi_config,
        host_root=settings.host_root,
        hanging=state.notice_of("cdi-file"),
    )


def _log_start(settings: Settings) -> None:
    text = f"br-gpu-device-plugin {__version__}; settings: {settings.differing()}"
    say("started", text, version=__version__)
    if settings.file is not None:
        text = f"settings file: {settings.file.path}"
        if settings.file.chosen_from is not None and settings.file.path.name == DEFAULT_FILE:
            own = own_file_of(settings.file.chosen_from, settings.node_name)
            text = f"{text}, as there is no {own.name}"
        say("settings_read", text, path=str(settings.file.path))
    allowed = os.sysconf("SC_OPEN_MAX")  # -1: unlimited
    if 0 <= allowed < ENOUGH_DESCRIPTORS:
        text = f"only {allowed} files may be open: {MORE_DESCRIPTORS}"
        say("descriptors_few", text, WARNING, allowed=allowed)
    for flag, why in without_effect(settings).items():
        say("flag_without_effect", f"{flag} has no effect: {why}", WARNING, flag=flag)


async def run_until_signal(settings: Settings) -> None:
    """Run the daemon as a process: SIGTERM, SIGINT, SIGHUP or SIGQUIT ends it cleanly, a second one at once.

    Everything goes on until the calls under way that are worth a wait are answered, for `PATIENCE` at most.
    Raises `FolderDead`, `OSError` when files or memory have run out before the daemon is loaded, and an
    `ExceptionGroup` of bugs.
    """
    fault: FolderDead | OSError | None = None
    last_calls = LastCalls()
    stopping = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, stopping.set)
            nursery.start_soon(run_daemon, settings, last_calls)
            await stopping.wait()
            with trio.move_on_after(PATIENCE):
                await last_calls.ended()
            nursery.cancel_scope.cancel()
    except* FolderDead as group:
        fault = next(each for each in flatten(group) if isinstance(each, FolderDead))
    except* OSError as group:
        found = [each for each in flatten(group) if isinstance(each, OSError)]
        if not all(map(is_limit, found)):
            raise
        fault = found[0]
    if fault is not None:
        raise fault


async def stop_on_signal(stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
    """Call `stop` at the first signal that ends the daemon; a second signal ends the process at once."""
    ignore_stray()
    for each in STOPPING:
        # In force again once the receiver is closed; SIG_DFL has no effect on a container's first process.
        signal.signal(each, _end_at_once)
    with trio.open_signal_receiver(*STOPPING) as signals:
        task_status.started()
        number = await anext(aiter(signals))
    name = signal.Signals(number).name
    say("stopping", f"stopping: {name}", signal=name)
    stop()


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    try:
        name = signal.Signals(number).name
        say("stopping", f"ended at once by a second signal: {name}", WARNING, signal=name)
    finally:
        exit_at_once(128 + number)
