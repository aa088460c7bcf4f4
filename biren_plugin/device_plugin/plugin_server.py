"""The five methods of DevicePlugin for one resource, counted and timed, on a socket of its own."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest, cards_for, preferred
from biren_plugin.core.container_edits import Answer, ContainerEdits
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.choose import Placement
from biren_plugin.daemon_state import Counters, Outcome
from biren_plugin.device_plugin.doubtful_cards import DoubtfulCards
from biren_plugin.device_plugin.node import CardScheduler, Streams
from biren_plugin.errors import NotReady, RequestRefused, SocketUnusable, why_unwritable
from biren_plugin.notice import DEBUG, WARNING, is_debugging, say
from biren_plugin.unix_sockets import FileIdentity, listen
from biren_plugin.wire.device_plugin import Plugin, new_server
from biren_plugin.wire.unix_grpc import bug_limit
from biren_plugin.worker_thread import WorkerThread

_LAST_ANSWERS: Final = 0.5
"""Seconds."""


class DevicePlugin:
    """Answers with the latest values of the boards; never waits for hardware.

    `doubtful` cards are for no second container. Where a `scheduler` has chosen the cards, its choice counts.
    """

    def __init__(
        self,
        offered: Board[DeviceList],
        inventory: Board[Inventory],
        watch: Callable[[], AsyncGenerator[DeviceList, None]],
        placement: Placement,
        answer: Answer,
        doubtful: DoubtfulCards,
        scheduler: CardScheduler | None = None,
    ) -> None:
        self.watch = watch
        self._offered = offered
        self._inventory = inventory
        self._placement = placement
        self._answer = answer
        self._doubtful = doubtful
        self._scheduler = scheduler

    async def prefer(self, requests: Sequence[PreferenceRequest]) -> list[list[str]]:
        """Return the ids to choose for each container. Raises `RequestRefused`."""
        choices = self._choose(requests)
        if self._scheduler is not None:
            for place, request in enumerate(requests):
                promised = await self._scheduler.prefer(request)
                choices[place] = choices[place] if promised is None else promised
        return choices

    def _choose(self, requests: Sequence[PreferenceRequest]) -> list[list[str]]:
        offered = self._current()
        topology = (self._inventory.latest or Inventory()).topology
        try:
            choices = [
                preferred(self._doubtful.left_out(each), offered, topology, self._placement)
                for each in requests
            ]
        except RequestRefused as error:
            text = f"{offered.resource}: refused to choose: {error}"
            say("preference_refused", text, WARNING, resource=offered.resource, reason=str(error))
            raise
        for request, choice in zip(requests, choices, strict=True):
            if len(choice) < request.size:
                text = (
                    f"{offered.resource}: asked to choose {request.size} of {len(request.available)} "
                    f"cards, but only {len(choice)} of them are known and Healthy"
                )
                say("preference_short", text, WARNING, resource=offered.resource)
            elif is_debugging():
                reason = topology.describe(choice) or "alone"
                text = f"{offered.resource}: would choose {', '.join(choice)}: {reason}"
                say("preferred", text, DEBUG, resource=offered.resource, cards=tuple(choice))
        return choices

    async def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerEdits]:
        """Return what each container gets for its device ids. Raises `RequestRefused`."""
        offered = self._current()
        try:
            cards = await self._admitted(requests, offered)
        except RequestRefused as error:
            text = f"{offered.resource}: refused an allocation: {error}"
            say("allocation_refused", text, WARNING, resource=offered.resource, reason=str(error))
            raise
        for each in cards:
            names = tuple(card.name for card in each)
            text = f"{offered.resource}: allocated {', '.join(names) or 'nothing'}"
            say("allocated", text, resource=offered.resource, cards=names)
        return [self._answer(each, offered.host) for each in cards]

    async def _admitted(
        self, requests: Sequence[Sequence[str]], offered: DeviceList
    ) -> list[list[Card]]:
        inventory = self._inventory.latest or Inventory()
        try:
            cards = cards_for(requests, offered, inventory)
        except RequestRefused:
            if self._scheduler is not None:
                for each in requests:
                    await self._scheduler.refuse(each)
            raise
        for ids in requests:
            # A scheduler's books know who holds a card; a kubelet's may be lost.
            if self._scheduler is None or not await self._scheduler.admit(ids):
                await self._doubtful.admit(ids)
        return cards

    def _current(self) -> DeviceList:
        if (offered := self._offered.latest) is None:
            raise NotReady("the device plugin has not read the node yet; try again")
        return offered


class CountedPlugin:
    """Answers as `plugin` does, and updates `counters`."""

    def __init__(
        self,
        plugin: Plugin,
        resource: str,
        counters: Counters,
        on_allocated: Callable[[Sequence[str]], None] = lambda _ids: None,
    ) -> None:
        self._plugin = plugin
        self._resource = resource
        self._counters = counters
        self._on_allocated = on_allocated

    @property
    def watch(self) -> Callable[[], AsyncGenerator[DeviceList, None]]:
        """Return the lists of one stream."""
        return self._plugin.watch

    async def prefer(self, requests: Sequence[PreferenceRequest]) -> list[list[str]]:
        """Return the ids to choose. Raises `RequestRefused`."""
        began = time.perf_counter()
        try:
            return await self._plugin.prefer(requests)
        finally:
            self._counters.preferring.add(time.perf_counter() - began)

    async def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerEdits]:
        """Return what each container gets. Raises `RequestRefused`."""
        began = time.perf_counter()
        outcome: Outcome = "failed"
        try:
            answer = await self._plugin.allocate(requests)
            outcome = "answered"
            self._on_allocated([id_ for each in requests for id_ in each])
        except RequestRefused:
            outcome = "refused"
            raise
        finally:
            self._counters.allocating.add(time.perf_counter() - began)
            self._counters.allocations[self._resource, outcome] += 1
        return answer


async def serve_plugin(
    path: Path,
    plugin: Plugin,
    thread: WorkerThread,
    *,
    task_status: trio.TaskStatus[FileIdentity] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on `path` until cancelled; started, with the socket's identity, once listening.

    A call under way is answered first, within `_LAST_ANSWERS`: one that is cut off costs its pod. `thread`
    creates and removes the file. Raises `SocketUnusable`, `NoThread`, and a call's bug when there were too many.
    """
    server = new_server(plugin, on_bug=bug_limit())
    try:
        listener = await listen(path, thread)
    except OSError as error:
        raise SocketUnusable(why_unwritable(path, error, "--device-plugin-dir")) from error
    task_status.started(listener.identity)
    await server.serve(listener, _LAST_ANSWERS)


async def watch_devices(
    offered: Board[DeviceList],
    streams: Board[Streams],
    on_sent: Callable[[DeviceList], None] = lambda _devices: None,
    shown: Callable[[DeviceList], DeviceList] = lambda devices: devices,
) -> AsyncGenerator[DeviceList, None]:
    """Yield the lists for one stream, as long as it is read.

    `streams` has a token for the stream while it is open, `on_sent` gets each list once it was written, and
    `shown` turns each list into the one to send. The kubelet writes its checkpoint for each list, so an
    equal list is only sent for a heartbeat.
    """
    stream = object()
    streams.post((streams.latest or Streams()).with_new(stream))
    try:
        with offered.subscribe() as lists:
            last: object = None
            async for current in lists:
                seen = shown(current)
                if (wire := _as_sent(seen)) != last:
                    last = wire
                    yield seen
                    on_sent(seen)
    finally:
        streams.post((streams.latest or Streams()).without(stream))


def _as_sent(devices: DeviceList) -> object:
    return devices.pulse, [(each.id, each.healthy, each.card.numa_node) for each in devices.devices]
