"""Asks which pod and which claim holds which card, and which devices are allocatable: a source of the survey.

1. Without an answer, the last report stays valid for `FORGET_AFTER`, since a restarting kubelet allocates
   nothing meanwhile. Then the report is dropped, and that is logged once: a pod that has gone must not
   keep a card forever.
2. A kubelet that has restarted lists no pod at first. While its list grows it is asked every `SETTLING`, and
   until it is settled who holds what every `SOONER`: see `kubelet_start`.
3. The kubelet is asked every `INTERVAL`, and every `SOONER` while the answer matters: when the node shows
   other devices, after a failed request, and while a registration is in doubt.
4. While a pod holds a device that the node does not show, or a claim that the kubelet believes prepared has
   no file, the wait doubles from `SOONER` to `INTERVAL` until the answer changes: it may stay so for days.
5. The CDI files of claims are read before each question, whichever way the node offers its cards: a node
   that switched from one to the other has pods of both.
"""

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board, news_of
from biren_plugin.core.inventory.holder_memory import FORGET_AFTER, HolderMemory
from biren_plugin.core.inventory.physical_gpus import shown_devices
from biren_plugin.core.inventory.stale_claims import ClaimComparison
from biren_plugin.core.model import Snapshot
from biren_plugin.core.observed import (
    NO_HOLDERS,
    RIGHT_AFTER,
    ClaimFiles,
    ClaimsSeen,
    Doubt,
    Holders,
    KubeletView,
    Observed,
)
from biren_plugin.core.parse.vendor import DOMAIN
from biren_plugin.errors import (
    NodeError,
    NoThread,
    PodResourcesUnknown,
    cure_of,
    reason_of,
    too_slow,
)
from biren_plugin.notice import Notice
from biren_plugin.shared_wakeups import until_wakeup
from biren_plugin.unix_sockets import FileIdentity, connect_at_once, stream_of
from biren_plugin.wire.pod_resources import ask_kubelet
from biren_plugin.worker_thread import WorkerThread

Shown = frozenset[tuple[str, str]]
"""Resource and id of each device that the node shows."""

SOCKET: Final = "kubelet.sock"
INTERVAL: Final = 10.0
"""Seconds; each request costs two milliseconds."""
SOONER: Final = 1.0
SETTLING: Final = 0.1
DEADLINE: Final = 5.0


async def ask_holders(
    folder: Path,
    observed: Board[Observed],
    views: Board[KubeletView],
    doubts: Board[Doubt],
    memory: HolderMemory,
    read_claims: Callable[[], Awaitable[ClaimFiles]],
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Post the holders to `observed`, None while they are unknown, and each answer to `views`.

    `read_claims` reads the CDI files of claims; it may raise `ClaimFileUnusable`.
    Each reason of `doubts` is a question `RIGHT_AFTER` it, and one that somebody waits for is asked at
    once; until their end there is one every `SOONER`.
    `memory` takes each answer. `on_turn` gets the seconds that each request took.
    """
    notice = Notice()
    reader = ClaimReader(read_claims)
    thread = WorkerThread()
    holders: Holders | None = None
    answered_at = trio.current_time()
    vanished_wait = SOONER
    while True:
        snapshot = observed.latest.snapshot if observed.latest is not None else None
        shown, doubt = _shown(snapshot), doubts.latest or Doubt()
        began = trio.current_time()
        wait = INTERVAL
        await reader.read()
        view = KubeletView(began)
        try:
            view, kubelet = await _ask(folder / SOCKET, thread)
        except PodResourcesUnknown as error:
            views.post(view)
            if holders is not None and trio.current_time() - answered_at < FORGET_AFTER:
                wait = SETTLING  # it may be restarting
            else:
                holders = None
                text = (
                    f"cannot tell which pod holds which card: {error}. "
                    "After a re-split a card name may be reused while its pod still runs"
                )
                notice.begin("holders_unknown", text, reason=str(error))
        else:
            answered_at = trio.current_time()
            notice.end("holders_known", "the kubelet reports which pod holds which card")
            holders = memory.answered(view, kubelet)
            if memory.is_settling:
                wait = SETTLING if memory.is_listing else SOONER
            views.post(view)
        claims = reader.compare(view)
        before = observed.latest or Observed()
        if (holders, claims) != (before.holders, before.claims):
            observed.post(attrs.evolve(before, holders=holders, claims=claims))
            vanished_wait = SOONER
        on_turn(trio.current_time() - began)
        if not reader.agrees or not shown.issuperset(holders or NO_HOLDERS):
            wait = min(wait, vanished_wait)
            vanished_wait *= 2
        else:
            vanished_wait = SOONER
            wait = min(wait, until_wakeup(INTERVAL))
        if began < (doubts.latest or Doubt()).until:
            wait = min(wait, SOONER)
        due = trio.current_time() + wait
        with news_of(observed, doubts) as news:
            while trio.current_time() < due:
                now = doubts.latest or Doubt()
                if now.waiting != doubt.waiting:
                    break
                if now.reasons != doubt.reasons:
                    due = min(due, trio.current_time() + RIGHT_AFTER)
                elif _shows_others(observed, snapshot, shown):
                    due = min(due, trio.current_time() + SOONER)
                with trio.move_on_at(due):
                    await news.receive()


class ClaimReader:
    """Reads the claims' files and compares them with the kubelet's views."""

    def __init__(self, read: Callable[[], Awaitable[ClaimFiles]]) -> None:
        self._read = read
        self._notice = Notice()
        self._keeper = ClaimComparison()
        self._files: ClaimFiles = {}
        self.agrees = True
        """Whether the files are all those that the kubelet believes in."""

    async def read(self) -> None:
        """Reads the files; those that cannot be read now are as before."""
        reason = ""
        with trio.move_on_after(DEADLINE) as reading:
            try:
                self._files = await self._read()
            except NodeError as error:
                reason = str(error)
        if reading.cancelled_caught:
            reason = too_slow("reading their files", DEADLINE)
        if reason:
            text = f"cannot tell which claims are prepared: {reason}"
            self._notice.begin("claims_unknown", text, reason=reason)
        else:
            self._notice.end("claims_known", "the files of claims can be read again")

    def compare(self, view: KubeletView) -> ClaimsSeen:
        """What claims hold by the files and by `view`, which was asked for after `read`."""
        seen = self._keeper.update(self._files, view, trio.current_time())
        self.agrees = view.claims is None or all(
            uid in self._files and self._files[uid].devices for uid in view.claims
        )
        return seen


def _shown(snapshot: Snapshot | None) -> Shown:
    return shown_devices(snapshot.cards if snapshot is not None else ())


def _shows_others(observed: Board[Observed], before: Snapshot | None, shown: Shown) -> bool:
    """Return whether the node now shows other devices than `before`, which are `shown`; same objects are quick."""
    now = observed.latest.snapshot if observed.latest is not None else None
    return now is not before and _shown(now) != shown


def _dial(path: Path) -> tuple[socket.socket, FileIdentity | None]:
    """Return a connection, and the identity of the socket after it. Blocks. Raises `OSError`."""
    return connect_at_once(path), FileIdentity.of(path)


def _hang_up(dialled: tuple[socket.socket, object]) -> None:
    dialled[0].close()


async def _ask(path: Path, thread: WorkerThread) -> tuple[KubeletView, FileIdentity | None]:
    """Return the kubelet's answer, and the identity of its socket. Raises `PodResourcesUnknown`."""
    try:
        with trio.fail_after(DEADLINE):
            connection, identity = await thread.acquire(partial(_dial, path), _hang_up)
    except FileNotFoundError as error:
        raise PodResourcesUnknown(f"no {path} (is its directory mounted?)") from error
    except OSError as error:
        silent = isinstance(error, ConnectionRefusedError | BlockingIOError)
        advice = "is the kubelet running?" if silent else cure_of(error, "see --pod-resources-dir")
        raise PodResourcesUnknown(f"{reason_of(error)} on {path} ({advice})") from error
    except trio.TooSlowError:
        raise PodResourcesUnknown(too_slow(f"opening {path}", DEADLINE)) from None
    except NoThread as error:
        raise PodResourcesUnknown(str(error)) from error
    return await ask_kubelet(stream_of(connection), DOMAIN, DEADLINE), identity
