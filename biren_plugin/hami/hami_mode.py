"""The tasks of a node under HAMi's scheduler, beside the resource that they serve.

1. Allocate has a connection of its own: a report that hangs must not hold it up.
2. Trouble with the API server costs reports and the lock's release, never a pod its cards.
"""

from functools import partial
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import load_from
from biren_plugin.cluster.object_watch import Objects, watch_objects
from biren_plugin.core.hami.annotations import NODE_SHAPE
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import ApiError, NodeError
from biren_plugin.hami.card_reports import CardReports
from biren_plugin.hami.lock_keeper import LockKeeper
from biren_plugin.hami.node_objects import NodeObjects
from biren_plugin.hami.promised_cards import PromisedCards
from biren_plugin.notice import DEBUG, WARNING, say
from biren_plugin.supervise import Pace, keep_running

PACE: Final = Pace(first_wait=0.5, longest_wait=5.0, quiet=10.0)
STEADY: Final = 5.0
"""Seconds without a failure after which a task counts as recovered: more than a call may take."""
FAREWELL: Final = 1.0
"""Seconds for the last calls of a daemon that stops."""


class HamiMode:
    """`cards` answers the kubelet; `run` does the rest."""

    def __init__(self, settings: Settings, state: DaemonState) -> None:
        self._daemon = state
        self._state = state.hami = HamiState()
        load = load_from(settings.kubeconfig)
        self._asking, self._telling = ApiServer(load), ApiServer(load)
        self._objects = NodeObjects(self._telling, settings.node_name)
        self._node = Board[Objects]()
        self._keeper = LockKeeper(self._objects, self._node, self._state)
        self.cards = PromisedCards(
            NodeObjects(self._asking, settings.node_name),
            self._state,
            self._keeper.settle,
            lambda: self._keeper.held,
        )
        self._reports = CardReports(
            self._objects, self.cards.offered, state.inventory, self._node, self._state
        )

    async def run(self) -> None:
        """Ends only by bugs, or cancelled; then the node is not locked for a pod of this plugin."""
        async with self._asking, self._telling:
            try:
                await self._run_tasks()
            finally:
                with trio.move_on_after(FAREWELL, shield=True) as late:
                    await self._end()
                if late.cancelled_caught:
                    text = f"HAMi's lock on the node may stay: no answer in {FAREWELL:g} s"
                    say("hami_lock_left", text, WARNING)

    async def _run_tasks(self) -> None:
        async with trio.open_nursery() as nursery:
            for name, task in (
                ("hami-node", self._watch_node),
                ("hami-reports", self._reports.run),
                ("hami-answers", self._keeper.run_settling),
                ("hami-lock", self._keeper.run_judging),
            ):
                nursery.start_soon(
                    partial(
                        keep_running,
                        task,
                        name,
                        expected=(NodeError,),
                        is_working=lambda: self._state.registered,
                        on_failure=partial(self._note_failure, name),
                        steady=STEADY,
                        pace=PACE,
                    )
                )

    async def _watch_node(self) -> None:
        query = {"fieldSelector": f"metadata.name={await self._objects.name()}"}
        failed = partial(self._note_failure, "hami-node")
        await watch_objects(self._telling, "/api/v1/nodes", query, self._node, failed, NODE_SHAPE)

    def _note_failure(self, name: str, cause: Exception) -> None:
        self._daemon.counters.restarted(name, cause)
        if isinstance(cause, ApiError) and name == "hami-reports":
            self._state.registered, self._state.trouble = False, str(cause)

    async def _end(self) -> None:
        try:
            await self._keeper.release_at_end()
        except NodeError as error:
            say("hami_lock_left", f"HAMi's lock on the node may stay: {error}", WARNING)
        try:
            if await self._objects.is_left_for_good():
                await self._reports.leave("the plugin leaves the node for good")
        except NodeError as error:
            say("hami_list_left", f"HAMi's list of the node stays: {error}", DEBUG)
