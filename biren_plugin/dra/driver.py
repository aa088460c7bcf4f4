"""The driver's subtree: only its start order."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.dra.claim_service import ClaimService
from biren_plugin.dra.driver_sockets import DriverSockets
from biren_plugin.errors import PluginSocketGone, SocketUnusable, StartTooSlow, why_unwritable
from biren_plugin.notice import ERROR, say
from biren_plugin.records import frozen
from biren_plugin.shared_wakeups import until_wakeup
from biren_plugin.unix_sockets import FileIdentity, UnixListener, listen
from biren_plugin.wire.dra_plugin import VERSIONS, PluginInfo, new_driver_server, new_info_server
from biren_plugin.wire.unix_grpc import bug_limit
from biren_plugin.worker_thread import WorkerThread

_START_DEADLINE: Final = 10.0
_GOODBYE: Final = 1.5
"""Seconds for which the driver's socket may outlive the cancellation: a daemon ends within two."""
_LOOK_INTERVAL: Final = 5.0
"""Seconds between checks of the two sockets' identity."""


@frozen
class Registered:
    """Whether the kubelet accepted the driver."""

    taken: bool = False
    trouble: str = ""
    """Why the kubelet refused; empty if it did not."""
    used: tuple[str, ...] = ()
    """The services that the kubelet has called."""


async def run_driver(
    sockets: DriverSockets,
    service: ClaimService,
    registered: Board[Registered],
    thread: WorkerThread,
) -> None:
    """Run one life of the driver: ends only by failing or being cancelled.

    `thread` makes the blocking calls for the sockets of all lives.
    """
    registered.post(Registered())
    deregistered = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(_START_DEADLINE) as starting:
            await nursery.start(
                serve_driver,
                sockets.plugin,
                service,
                deregistered,
                partial(_take_use, registered),
                thread,
            )
            await nursery.start(
                stay_registered, sockets, deregistered, partial(_take_verdict, registered), thread
            )
        if starting.cancelled_caught:
            deregistered.set()
            raise StartTooSlow(DRA_DRIVER, _START_DEADLINE)


def _take_use(registered: Board[Registered], service: str) -> None:
    before = registered.latest or Registered()
    if service not in before.used:
        registered.post(attrs.evolve(before, used=tuple(sorted({*before.used, service}))))


def _take_verdict(registered: Board[Registered], trouble: str) -> None:
    before = registered.latest or Registered()
    verdict = attrs.evolve(before, taken=not trouble, trouble=trouble)
    if verdict != before:
        if trouble:
            say(
                "driver_refused",
                f"the kubelet refused {DRA_DRIVER}: {trouble}",
                ERROR,
                reason=trouble,
            )
        else:
            say("driver_registered", f"{DRA_DRIVER} is registered with the kubelet")
    registered.post(verdict)


async def serve_driver(
    path: Path,
    service: ClaimService,
    deregistered: trio.Event,
    on_used: Callable[[str], None],
    thread: WorkerThread,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve claims and health on `path` until cancelled; started once listening.

    At the end it continues to serve until `deregistered` and until calls under way are answered, for at most
    `_GOODBYE`: the kubelet must not call a driver that has gone, and repeats a call that was cut off only after
    60 to 90 s. Raises `SocketUnusable`, `NoThread`, `PluginSocketGone`, and a call's bug when there were too many.
    """
    server = new_driver_server(service, bug_limit(), on_used)
    listener = await _listen(path, thread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, listener, _GOODBYE, deregistered.wait)
        task_status.started()
        try:
            await _until_gone(path, listener.identity, thread)
        except PluginSocketGone:
            deregistered.set()  # no call comes any more: nothing to wait for
            raise


async def stay_registered(
    sockets: DriverSockets,
    deregistered: trio.Event,
    on_verdict: Callable[[str], None],
    thread: WorkerThread,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stay in the kubelet's registry until cancelled; started once its socket exists.

    Raises `SocketUnusable`, `NoThread` and `PluginSocketGone`.
    """
    info = PluginInfo(DRA_DRIVER, str(sockets.plugin), VERSIONS)
    try:
        listener = await _listen(sockets.registration, thread)
        server = new_info_server(info, on_verdict, on_bug=bug_limit())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, server.handle, [listener])
            task_status.started()
            await _until_gone(sockets.registration, listener.identity, thread)
    finally:
        deregistered.set()


async def _until_gone(path: Path, identity: FileIdentity, thread: WorkerThread) -> None:
    """Watch a socket of the driver. Ends by raising `PluginSocketGone`."""
    find = partial(FileIdentity.of, path, identity)
    while await thread.run_or(find, identity) == identity:  # noqa: ASYNC110 - no event reports a deletion
        await trio.sleep(until_wakeup(_LOOK_INTERVAL))
    raise PluginSocketGone(f"{path} was deleted or replaced: the kubelet cannot reach the driver")


async def _listen(path: Path, thread: WorkerThread) -> UnixListener:
    make_parent = partial(path.parent.mkdir, mode=0o750, parents=True, exist_ok=True)
    try:
        return await listen(path, thread, before=make_parent)
    except OSError as error:
        raise SocketUnusable(why_unwritable(path, error, "--kubelet-root")) from error
