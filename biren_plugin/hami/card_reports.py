"""Keeps HAMi's list of the node's whole cards: our verdict on each, as the kubelet has it.

1. The list and the handshake go in one patch: at the first list, at each change, when the node object
   is another one, and every `INTERVAL` for ever. HAMi forgets all nodes when it restarts, and asks none.
2. A node that has lost its whole cards, or that the plugin leaves for good, is taken off HAMi's list; a
   daemon that makes room for its successor writes nothing.
"""

import json
import math
import time
from collections.abc import Iterable
from typing import Final

import trio

from biren_plugin.board import Board, news_of
from biren_plugin.cluster.object_watch import Objects
from biren_plugin.core.hami.annotations import (
    CARDS,
    LEAVING,
    annotation,
    faulty_cards,
    reporting,
    write_cards,
)
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.parse.api_shapes import Object
from biren_plugin.core.parse.splits import WHOLE_GPU
from biren_plugin.errors import ApiConflict
from biren_plugin.hami.node_objects import NodeObjects
from biren_plugin.notice import say

INTERVAL: Final = 30.0
"""Seconds between reports: with HAMi's own 15, so long is a node unknown after its restart."""
_TRIES: Final = 5


class CardReports:
    """What HAMi knows of the node; outlives each life of its task."""

    def __init__(
        self,
        objects: NodeObjects,
        offered: Board[DeviceList],
        inventory: Board[Inventory],
        node: Board[Objects],
        state: HamiState,
    ) -> None:
        """`node` has the node object, and nothing else."""
        self._objects = objects
        self._offered = offered
        self._inventory = inventory
        self._node = node
        self._state = state
        self._written = ""
        self._uid = ""
        self._due = math.inf

    async def run(self) -> None:
        """Reports for ever. Raises `ApiError`."""
        self._due = trio.current_time()  # what failed is tried again
        with news_of(self._offered, self._inventory, self._node) as news:
            while True:
                await self._turn()
                with trio.move_on_at(self._due):
                    await news.receive()

    async def _turn(self) -> None:
        inventory, offered = self._inventory.latest, self._offered.latest
        is_due = trio.current_time() >= self._due
        if is_due:
            self._due = math.inf
        if inventory is None:
            return
        if inventory.list_of(WHOLE_GPU) is None:
            await self.leave("the node has no whole card any more")
        elif offered is not None:
            before = self._written or self._stored()
            cards = write_cards(offered.devices, inventory.topology) or faulty_cards(before)
            if cards is not None and (cards != self._written or is_due or self._is_another_node()):
                await self._report(cards)

    async def _report(self, cards: str) -> None:
        now = time.time()
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
        for again in range(_TRIES):
            try:
                node = await self._objects.annotate(reporting(cards, when))
                break
            except ApiConflict:  # two writers: nothing of ours is decided from the old object
                if again == _TRIES - 1:
                    raise
                await trio.lowlevel.checkpoint()
        self._due = trio.current_time() + INTERVAL
        uid = node["metadata"]["uid"]
        if cards != self._written or uid != self._uid:
            healthy = sum(each["health"] for each in json.loads(cards))
            text = f"reported to HAMi: {healthy} healthy cards"
            say("hami_reported", text, healthy=healthy, node=node["metadata"]["name"])
        self._written, self._uid = cards, uid
        self._state.registered, self._state.trouble, self._state.reported = True, "", now

    async def leave(self, why: str) -> None:
        """Takes back what this daemon, or one before it, reported. Raises `ApiError`."""
        if self._written or self._stored():
            await self._objects.annotate(LEAVING)
            say("hami_left", f"{why}: its cards leave HAMi's list")
        self._written, self._state.registered = "", False

    def _is_another_node(self) -> bool:
        return any(each["metadata"]["uid"] != self._uid for each in self._nodes())

    def _stored(self) -> str:
        return next((annotation(each, CARDS) for each in self._nodes()), "")

    def _nodes(self) -> Iterable[Object]:
        return (self._node.latest or {}).values()
