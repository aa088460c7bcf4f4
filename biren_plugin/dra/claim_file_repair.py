"""Keeps the files of claims in step with the kubelet: restores lost files, and removes stale ones.

1. A restarting container uses the CDI names in the kubelet's checkpoint, without a call to the driver. So a
   lost file is written again from those names alone: the API server may be unavailable.
2. A stale file is removed if it has not changed since the check, and if no listed pod uses its claim:
   a kubelet that lost its checkpoint shows such a claim without devices.
3. A failed step is tried again with the kubelet's next report.
4. The kubelet is asked for its next report as soon as a file leaves the directory: a file that vanished is
   back in about a second. Without inotify that takes until the next question.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from biren_plugin.board import Board, news_of
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.core.dra.claims import CLAIM, held_by, path_of_claim, spec_of
from biren_plugin.core.observed import ClaimsSeen, Observed
from biren_plugin.core.parse.api_shapes import shaped
from biren_plugin.dra.claim_service import LOCK_DEADLINE, Offer
from biren_plugin.errors import ApiNotFound, ClaimFileUnusable, NodeError
from biren_plugin.files.claim_files import ClaimFiles, in_turn
from biren_plugin.files.claim_reading import claim_file_names
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.notice import WARNING, Notice, say
from biren_plugin.worker_thread import WorkerThread

_ARM_AGAIN: Final = 5.0
"""Seconds after which a directory that was deleted and created again is watched again."""


async def watch_files(directory: Path, on_change: Callable[[], None]) -> None:
    """Call `on_change` when a file has left the directory of the claims' files. Runs until cancelled."""
    thread = WorkerThread()
    with suppress(OSError):  # the next write of a claim's file reports the reason
        await thread.run(partial(directory.mkdir, mode=0o755, parents=True, exist_ok=True))
    names: frozenset[str] = frozenset()
    with FolderEvents([directory]) as events:

        def read(now: float) -> frozenset[str]:
            events.arm(now)
            return claim_file_names(directory)

        while True:
            before, names = names, await thread.run(partial(read, trio.current_time()))
            if before - names:
                on_change()
            await events.wait(_ARM_AGAIN)


class ClaimFileRepair:
    """Restores and sweeps the files of claims."""

    def __init__(self, api: ApiServer, files: ClaimFiles, lock: Path) -> None:
        self._api = api
        self._files = files
        self._lock = lock
        self._thread = WorkerThread()
        self._notices: dict[str, Notice] = {}

    async def run(self, observed: Board[Observed], offers: Board[Offer]) -> None:
        """Run until cancelled."""
        tended: ClaimsSeen | None = None
        with news_of(observed, offers) as news:
            while True:
                await news.receive()
                seen = observed.latest or Observed()
                # Each report counts once: a claim may have been released since.
                if seen.claims not in (None, tended) and offers.latest is not None:
                    tended = seen.claims
                    await self._tend(tended, offers.latest)

    async def _tend(self, claims: ClaimsSeen, offer: Offer) -> None:
        differing = claims.lost | claims.stale
        for uid in self._notices.keys() - differing:
            self._notices.pop(uid).end("claim_file_right", f"the file of the claim with uid {uid} is correct")  # fmt: skip
        for uid in sorted(differing):
            try:
                if uid in claims.lost:
                    await self._thread.run(partial(self._restore, uid, claims, offer))
                elif not await self._is_needed(uid, claims):
                    await self._thread.run(partial(self._sweep, uid, claims))
            except NodeError as error:
                notice = self._notices.setdefault(uid, Notice())
                text = f"the file of the claim with uid {uid} cannot be corrected: {error}"
                notice.begin("claim_file_wrong", text, reason=str(error))

    def _restore(self, uid: str, claims: ClaimsSeen, offer: Offer) -> None:
        """Blocking. Raises `ClaimFileUnusable`."""
        use = claims.believed[uid]
        with in_turn(self._lock, LOCK_DEADLINE):
            files = self._files.read_all()
            if uid in files and files[uid].devices:
                return
            held = held_by(files, uid)
            for each in use.devices:
                if each.device not in offer.pool.devices:
                    raise ClaimFileUnusable(
                        f"{each.device} is not on this node any more; delete pod {use.pod}"
                    )
                if each.device in held and not each.admin:
                    raise ClaimFileUnusable(
                        f"the claim with uid {held[each.device]} has {each.device} now; "
                        f"delete pod {use.pod}"
                    )
            spec = spec_of(use.devices, offer.pool.devices, offer.host, offer.visible_devices)
            if spec is not None:
                self._files.write(uid, spec)
                say("claim_file_restored", f"claim {use}: its CDI file had vanished and was written again", WARNING, claim=str(use))  # fmt: skip

    async def _is_needed(self, uid: str, claims: ClaimsSeen) -> bool:
        """Return whether a listed pod uses the claim anyway. Raises `ApiError`."""
        for namespace, name in sorted(claims.unprepared):
            try:
                found = await self._api.call("GET", path_of_claim(namespace, name))
            except ApiNotFound:
                continue
            if shaped(found, CLAIM, "a claim")["metadata"]["uid"] == uid:
                return True
        return False

    def _sweep(self, uid: str, claims: ClaimsSeen) -> None:
        """Blocking. Raises `ClaimFileUnusable`."""
        with in_turn(self._lock, LOCK_DEADLINE):
            if self._files.remove_if(uid, claims.files[uid]):
                text = f"removed the CDI file of the claim with uid {uid}: the kubelet no longer knows it"
                say("claim_file_swept", text, claim=uid)
