"""Keeps the node's slices in the API server in step with the pool.

1. Each change of the pool, or of a stored slice by any client, causes one round: list the slices, decide
   (`core/dra/slice_writes`), write. Deciding from a list, not from the watch, never misses this daemon's own
   writes.
2. A conflict or a slice that vanished in between starts the round again.
3. An object that the server refuses as invalid is logged, and not sent again until the pool changes.
4. A field that the server drops is logged once, and not sent again until the connection to the server has
   failed: another server may answer then.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import attrs
import trio

from biren_plugin.board import Board, news_of
from biren_plugin.cluster.api_server import ApiServer, items_of
from biren_plugin.cluster.object_watch import Objects, Refusals
from biren_plugin.core.dra.pool import Pool
from biren_plugin.core.dra.slice_writes import (
    SLICE,
    Create,
    Delete,
    Owner,
    Update,
    Write,
    plain,
    writes_for,
)
from biren_plugin.core.parse.api_shapes import Object, shaped
from biren_plugin.core.parse.vendor import DRA_DRIVER
from biren_plugin.errors import ApiConflict, ApiForbidden, ApiInvalid, ApiNotFound, ApiUnreachable
from biren_plugin.notice import ERROR, WARNING, say
from biren_plugin.records import frozen

PATH: Final = "/apis/resource.k8s.io/v1/resourceslices"
_ROUNDS: Final = 5
_REMEMBERED: Final = 16
"""Specs of which it is known what the server made of them; a pool has a few slices."""
_STRICT: Final = {"fieldValidation": "Strict"}


@frozen
class Published:
    """The part of the pool that the API server has."""

    wanted: int = 0
    """Devices that should be published."""
    stored: int = 0
    """Devices in the stored slices after the last round."""
    trouble: str = ""
    """Why the slices are not as wanted; empty if they are."""
    dropped: tuple[str, ...] = ()
    """Fields of devices that the server was seen to drop."""


def selection(node: str) -> Mapping[str, str]:
    """Return the query that selects this driver's slices of the node."""
    return {"fieldSelector": f"spec.driver={DRA_DRIVER},spec.nodeName={node}"}


class SlicePublisher:
    """Publishes for `owner`. Knowledge of dropped fields outlives a restart of the task."""

    def __init__(self, api: ApiServer, owner: Owner) -> None:
        self._api = api
        self._owner = owner
        self._accepted: dict[str, str] = {}
        self._dropped: frozenset[str] = frozenset()
        self._refused: tuple[tuple[Object, ...], ...] | None = None
        self._has_worked = False
        self._refusals = Refusals()
        self.published = Board[Published]()

    async def run(self, pools: Board[Pool], stored: Board[Objects]) -> None:
        """Publish the latest pool whenever the pool or a stored slice changes. Raises `ApiError`."""
        with news_of(pools, stored) as news:
            while True:
                await news.receive()
                pool = pools.latest
                if pool is None or pool.slices == self._refused:
                    continue
                try:
                    await self._publish(pool)
                except ApiForbidden:
                    await self._refusals.wait()
                    raise
                except ApiInvalid as error:
                    self._refused = pool.slices
                    say("slices_refused", f"the API server refuses this node's slices: {error}", ERROR, reason=str(error))  # fmt: skip
                    self._post(Published(len(pool.devices), 0, str(error)))

    def has_worked(self) -> bool:
        """Return whether a round has ended well since the last call."""
        worked, self._has_worked = self._has_worked, False
        return worked

    def note_failure(self, cause: Exception) -> None:
        """The slices, or the watch of them, failed: what is stored may not be as wanted.

        The server that answers next may be a newer one, with other features.
        """
        self._refused = None
        self._accepted.clear()
        self._dropped = frozenset()
        self._post(attrs.evolve(self.published.latest or Published(), trouble=str(cause)))

    def _post(self, published: Published) -> None:
        self.published.post(attrs.evolve(published, dropped=tuple(sorted(self._dropped))))

    async def _publish(self, pool: Pool) -> None:
        for _ in range(_ROUNDS):
            listed = await self._api.call("GET", PATH, query=selection(self._owner.name))
            stored = {each["metadata"]["name"]: each for each in items_of(listed, SLICE)}
            writes = writes_for(pool.slices, stored, self._owner, self._accepted)
            try:
                for write in writes:
                    await self._write(write)
            except (ApiConflict, ApiNotFound):
                await trio.lowlevel.checkpoint()
                continue
            if writes:
                say("slices_published", f"published {len(pool.devices)} devices", devices=len(pool.devices), writes=len(writes))  # fmt: skip
            self._has_worked = True
            self._post(Published(len(pool.devices), len(pool.devices)))
            return
        raise ApiUnreachable(f"another client keeps changing this node's slices of {DRA_DRIVER}")

    async def _write(self, write: Write) -> None:
        match write:
            case Delete(stored=stored):
                metadata = stored["metadata"]
                body = {
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "preconditions": {
                        "uid": metadata["uid"],
                        "resourceVersion": metadata["resourceVersion"],
                    },
                }
                await self._api.call("DELETE", _path_of(stored), body)
            case Update(slice=sent):
                self._compare(
                    sent, await self._api.call("PUT", _path_of(sent), sent, query=_STRICT)
                )
            case Create(slice=sent):
                self._compare(sent, await self._api.call("POST", PATH, sent, query=_STRICT))

    def _compare(self, sent: Object, returned: Object) -> None:
        shaped(returned, SLICE, "a slice")
        wanted, stored = plain(sent["spec"]), plain(returned["spec"])
        if wanted == stored:
            return
        self._accepted.pop(wanted, None)
        self._accepted[wanted] = stored
        if len(self._accepted) > _REMEMBERED:
            del self._accepted[next(iter(self._accepted))]
        dropped = {
            key
            for one, other in zip(sent["spec"]["devices"], returned["spec"].get("devices") or (), strict=False)
            for key in one.keys() - other.keys()
        }  # fmt: skip
        if new := dropped - self._dropped:
            self._dropped |= new
            what = ", ".join(sorted(new))
            say("slice_fields_dropped", f"the API server drops {what} of devices: a feature gate of the cluster is off", WARNING, fields=tuple(sorted(new)))  # fmt: skip


def _path_of(found: Object) -> str:
    return f"{PATH}/{quote(found['metadata']['name'], safe='')}"
