"""Writes changed verdicts as Kubernetes Events about the node, where the daemon talks to the API server anyway.

1. What happened before is counted in its Event, for as long as the API server keeps that one (an hour).
2. While the API server is away, an Event waits for it, `PATIENCE` at most; a refused one is given up.
   At most `ROOM` wait, and `Allowance` limits how many are written. Those beyond are dropped and counted.
3. Nothing depends on an Event: trouble is one line in the log, and a sentence in `status`.
"""

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final
from urllib.parse import quote

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import Load, who_am_i
from biren_plugin.core.event_objects import (
    NAMESPACE,
    NodeEvent,
    NodeEventsState,
    again,
    events_of,
    new_event,
)
from biren_plugin.core.inventory_log import remark_lists
from biren_plugin.core.model import Inventory
from biren_plugin.errors import ApiConflict, ApiError, ApiNotFound, ApiUnreachable
from biren_plugin.notice import Notice
from biren_plugin.records import frozen

PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/events"
ROOM: Final = 32
PATIENCE: Final = 600.0
"""Seconds."""
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0
_REMEMBERED: Final = 64
"""Events whose count can go on."""
BURST: Final = 25
"""Events that may be written at once; then one in each `REFILL`, as client-go's filter has it."""
REFILL: Final = 300.0
"""Seconds."""


@frozen
class _Happened:
    """A change, and when."""

    event: NodeEvent
    at: float
    """Seconds since 1970."""
    until: float
    """When it is given up, in seconds of trio's clock."""


@frozen
class _Written:
    """An Event in the API server."""

    name: str
    count: int


class Allowance:
    """How many Events may be written. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Return whether one more may be written now."""
        passed = now - self._at if self._at is not None else 0.0
        self._at = now
        self._left = min(self._left + passed / REFILL, float(BURST))
        if self._left < 1:
            return False
        self._left -= 1
        return True


class NodeEvents:
    """The Events of the node called `node`, or without a name of the one that the pod's token names."""

    def __init__(
        self, load: Load, node: str, inventory: Board[Inventory], state: NodeEventsState
    ) -> None:
        self._api = ApiServer(load)
        self._node = node
        self._inventory = inventory
        self._state = state
        self._put, self._waiting = trio.open_memory_channel[_Happened](ROOM)
        self._allowance = Allowance()
        self._written: OrderedDict[NodeEvent, _Written] = OrderedDict()
        self._notice = Notice()
        self._last = 0.0
        self._followed = Inventory()
        """The inventory whose changes were taken last: a restart after a bug takes none again."""

    async def run(self) -> None:
        """Ends only by bugs, or cancelled."""
        async with self._api, trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            async for happened in self._waiting:
                await self._write_patiently(happened)

    async def _follow(self) -> None:
        with self._inventory.subscribe() as inventories:
            async for current in inventories:
                for event in events_of(remark_lists(self._followed.lists, current.lists)):
                    self._take(event)
                self._followed = current

    def _take(self, event: NodeEvent) -> None:
        now = trio.current_time()
        if not self._allowance.take(now):
            self._state.dropped += 1
            return
        self._last = max(time.time(), self._last + 1e-6)  # Events are named by their times
        try:
            self._put.send_nowait(_Happened(event, self._last, now + PATIENCE))
        except trio.WouldBlock:
            self._state.dropped += 1

    async def _write_patiently(self, happened: _Happened) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                await self._write(happened)
            except ApiError as error:
                text = f"Events about the node are not written: {error}"
                self._notice.begin("node_events_unwritten", text, reason=str(error))
                self._state.trouble = text
                if not isinstance(error, ApiUnreachable) or trio.current_time() >= happened.until:
                    self._state.dropped += 1
                    return
                await trio.sleep(max(wait, min(error.retry_after or 0.0, _LONGEST_WAIT)))
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                self._notice.end("node_events_written", "Events about the node are written again")
                self._state.trouble = ""
                self._state.written += 1
                return

    async def _write(self, happened: _Happened) -> None:
        """Raises `ApiError`."""
        event = happened.event
        if (known := self._written.get(event)) is not None:
            path = f"{PATH}/{quote(known.name, safe='')}"
            try:
                await self._api.call("PATCH", path, again(known.count + 1, happened.at))
            except ApiNotFound:  # the API server has forgotten it
                del self._written[event]
            else:
                self._written[event] = attrs.evolve(known, count=known.count + 1)
                self._written.move_to_end(event)
                return
        created = new_event(event, await self._name(), happened.at)
        with suppress(ApiConflict):  # the answer to an earlier try was lost
            await self._api.call("POST", PATH, created)
        self._written[event] = _Written(created["metadata"]["name"], 1)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    async def _name(self) -> str:
        if not self._node:
            self._node = who_am_i((await self._api.access()).token or "").node
        return self._node
