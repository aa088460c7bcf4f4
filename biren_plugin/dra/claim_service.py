"""NodePrepareResources and NodeUnprepareResources: turns an allocated claim into its CDI file.

1. The kubelet tries a failed Prepare again only after 60 to 90 s. So obstacles that pass by themselves (an
   API server that restarts, a card that is about to be released) are waited for, up to `PATIENCE`.
2. Checking the other claims' devices and writing the file is one step, under a lock that the other
   instance on the node takes too.
3. A call that the kubelet abandoned leaves no new claim prepared, unless another call has prepared it too:
   pods that share a claim are started at the same time.
4. Unprepare needs no API server: the claim may be gone.
5. The claims of one call are prepared side by side: one that waits does not hold up another.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import CALL_DEADLINE, ApiServer
from biren_plugin.core.container_edits import VisibleDevices
from biren_plugin.core.dra.claims import (
    Allocated,
    ClaimId,
    DeviceHealth,
    PreparedDevice,
    allocated_of,
    check_usable,
    held_by,
    path_of_claim,
    prepared_of,
    spec_of,
)
from biren_plugin.core.dra.pool import Pool
from biren_plugin.core.model import HostFacts
from biren_plugin.core.observed import NO_HOLDERS, ClaimFile, Holders
from biren_plugin.daemon_state import Counters, Outcome
from biren_plugin.errors import (
    ApiError,
    ApiForbidden,
    ApiNotFound,
    ApiUnreachable,
    ClaimFileUnusable,
    ClaimNotReady,
    ClaimRefused,
    NodeError,
    RequestRefused,
)
from biren_plugin.files.claim_files import ClaimFiles, in_turn
from biren_plugin.last_calls import LastCalls
from biren_plugin.notice import WARNING, say
from biren_plugin.records import frozen, mutable
from biren_plugin.worker_thread import WorkerThread

PATIENCE: Final = 38.0
"""Seconds, well below the kubelet's 45."""
HEALTH_INTERVAL: Final = 10.0
"""Seconds between health lists: for the kubelet, a list is valid for 30."""
_RETRY: Final = 0.5
"""Seconds between tries without a change of the node."""
LOCK_DEADLINE: Final = 2.0
_UNDO_DEADLINE: Final = 2.0
_GRACE: Final = 3.0
"""Seconds beyond the patience for a last try."""
_FORBIDDEN_PATIENCE: Final = 5.0
"""Seconds: an API server that has just started may refuse what it allows once it knows its roles."""
_SHORTEST_CALL: Final = 1.0
"""Seconds for a call of the API server when the patience has run out."""
_HANGS: Final = "the directory of --claim-cdi-dir, or that of the driver's lock, does not answer; is its disk dead?"


@frozen
class Offer:
    """The node's current offer, for Prepare."""

    pool: Pool
    host: HostFacts
    visible_devices: VisibleDevices = "none"
    holders: Holders | None = None
    """The pods that hold cards through the device plugin API; None: the kubelet has not reported yet."""
    lost: Mapping[str, str] = attrs.Factory(dict)
    """The uid of the claim that holds each device, by device name, of claims whose files have vanished."""


@mutable
class _Commit:
    """The result of one try to write a claim's file."""

    made: ClaimFile | None = None
    """The file, if it was created; another call may have written the claim's file again since."""


class ClaimService:
    """Answers the kubelet for the pool called `node`."""

    def __init__(
        self,
        api: ApiServer,
        node: str,
        offers: Board[Offer],
        files: ClaimFiles,
        lock: Path,
        counters: Counters,
        last_calls: LastCalls | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._node = node
        self._offers = offers
        self._files = files
        self._lock = lock
        self._counters = counters
        self._last_calls = last_calls or LastCalls()
        self._on_change = on_change
        self._thread = WorkerThread()

    async def prepare(self, claims: Sequence[ClaimId]) -> Mapping[str, list[PreparedDevice] | str]:
        """Return by uid the claim's devices, or why it was not prepared."""
        until = trio.current_time() + PATIENCE
        answers: dict[str, list[PreparedDevice] | str] = {}
        with self._last_calls.one():
            async with trio.open_nursery() as nursery:
                for claim in {each.uid: each for each in claims}.values():
                    nursery.start_soon(self._answer, claim, until, answers)
        return answers

    async def _answer(
        self, claim: ClaimId, until: float, answers: dict[str, list[PreparedDevice] | str]
    ) -> None:
        """Put the claim's own answer into `answers`."""
        try:
            with self._counted():
                devices = await self._prepare_in_time(claim, until)
            answers[claim.uid] = devices
        except (RequestRefused, NodeError) as error:
            answers[claim.uid] = str(error)
            say("claim_refused", f"claim {claim} was not prepared: {error}", WARNING, claim=str(claim), reason=str(error))  # fmt: skip
        else:
            self._on_change()
            names = ", ".join(each.device for each in devices) or "no device of this node"
            say("claim_prepared", f"claim {claim}: prepared {names}", claim=str(claim), devices=tuple(each.device for each in devices))  # fmt: skip

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.perf_counter()
        outcome: Outcome = "failed"
        try:
            yield
            outcome = "answered"
        except RequestRefused:
            outcome = "refused"
            raise
        finally:
            self._counters.preparing.add(time.perf_counter() - began)
            self._counters.claims[outcome] += 1

    async def _prepare_in_time(self, claim: ClaimId, until: float) -> list[PreparedDevice]:
        """Raises `ClaimFileUnusable` if the directory of the files still hangs when the patience is over."""
        with trio.move_on_at(until + _GRACE):
            return await self._prepare_patiently(claim, until)
        raise ClaimFileUnusable(_HANGS)

    async def _prepare_patiently(self, claim: ClaimId, until: float) -> list[PreparedDevice]:
        forbidden_until = min(until, trio.current_time() + _FORBIDDEN_PATIENCE)
        with self._offers.subscribe() as news:
            while True:
                wait = _RETRY
                try:
                    return await self._prepare_once(claim, until)
                except ApiForbidden:
                    if trio.current_time() >= forbidden_until:
                        raise
                except (ApiError, ClaimNotReady, ClaimFileUnusable) as error:
                    left = until - trio.current_time()
                    if left <= 0:
                        raise
                    if isinstance(error, ApiUnreachable) and error.retry_after is not None:
                        wait = min(error.retry_after, left)
                with trio.move_on_after(wait):
                    await news.receive()

    async def _prepare_once(self, claim: ClaimId, until: float) -> list[PreparedDevice]:
        path = path_of_claim(claim.namespace, claim.name)
        left = max(until - trio.current_time(), _SHORTEST_CALL)
        try:
            stored = await self._api.call("GET", path, deadline=min(left, CALL_DEADLINE))
        except ApiNotFound as error:
            raise ClaimRefused(f"claim {claim} does not exist any more; delete the pod") from error
        allocated = allocated_of(stored, claim, self._node)
        if (offer := self._offers.latest) is None:
            raise ClaimNotReady("the node has not been read yet; try again")
        if offer.holders is None:
            raise ClaimNotReady(
                "the kubelet does not report which pods hold cards; see --pod-resources-dir"
            )
        commit = _Commit()
        done = False
        try:
            await self._thread.run(partial(self._commit, claim, allocated, offer, commit))
            await trio.lowlevel.checkpoint_if_cancelled()  # the caller has gone
            done = True
        finally:
            if not done:
                with trio.move_on_after(_UNDO_DEADLINE, shield=True):
                    # In the same thread, so after a commit that is still running.
                    await self._thread.run(partial(self._undo, claim, commit))
        return prepared_of(claim, self._node, allocated)

    def _commit(
        self, claim: ClaimId, allocated: Sequence[Allocated], offer: Offer, commit: _Commit
    ) -> None:
        """Check and write. Blocking; raises `ClaimNotReady` and `ClaimFileUnusable`."""
        holders = offer.holders or NO_HOLDERS
        lost = {device: uid for device, uid in offer.lost.items() if uid != claim.uid}
        held_by_plugin = {
            name: str(holders[device.resource, device.id])
            for name, device in offer.pool.devices.items()
            if (device.resource, device.id) in holders
        }
        with in_turn(self._lock, LOCK_DEADLINE):
            files = self._files.read_all()
            check_usable(
                allocated,
                offer.pool.devices,
                offer.pool.taints,
                {**lost, **held_by(files, claim.uid)},
                held_by_plugin,
            )
            claimed = [each.of(claim.uid) for each in allocated]
            spec = spec_of(claimed, offer.pool.devices, offer.host, offer.visible_devices)
            if spec is not None:
                written = self._files.write(claim.uid, spec)
                commit.made = written if claim.uid not in files else None

    def _undo(self, claim: ClaimId, commit: _Commit) -> None:
        """Remove the file that `commit` made. Blocking; raises `ClaimFileUnusable`."""
        if commit.made is not None:
            with in_turn(self._lock, LOCK_DEADLINE):
                self._files.remove_if(claim.uid, commit.made)

    async def unprepare(self, claims: Sequence[ClaimId]) -> Mapping[str, str]:
        """Return by uid why the claim was not unprepared; empty if it was, or never was prepared."""
        until = trio.current_time() + PATIENCE
        answers = {}
        for claim in claims:
            answers[claim.uid] = ""
            try:
                with self._last_calls.one():
                    await self._remove_in_time(claim.uid, until)
            except NodeError as error:
                answers[claim.uid] = str(error)
                say("claim_kept", f"claim {claim} was not released: {error}", WARNING, claim=str(claim), reason=str(error))  # fmt: skip
            else:
                self._on_change()
                say("claim_released", f"claim {claim}: released", claim=str(claim))
        return answers

    async def _remove_in_time(self, uid: str, until: float) -> None:
        """Raises `ClaimFileUnusable`, also if the directory still hangs when the patience is over."""
        with trio.move_on_at(until + _GRACE):
            return await self._thread.run(partial(self._files.remove, uid))
        raise ClaimFileUnusable(_HANGS)

    async def health(self) -> AsyncGenerator[Sequence[DeviceHealth], None]:
        """Yield the health of all devices: at once, at each change, and every `HEALTH_INTERVAL`."""
        with self._offers.subscribe() as offers:
            offer = await offers.receive()
            while True:
                yield [
                    DeviceHealth(self._node, name, "; ".join(device.reasons))
                    for name, device in offer.pool.devices.items()
                ]
                with trio.move_on_after(HEALTH_INTERVAL):
                    offer = await offers.receive()
