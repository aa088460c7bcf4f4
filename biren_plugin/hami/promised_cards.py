"""The kubelet's two questions, answered with the cards that HAMi promised to the pod it asks for.

1. Both questions ask the API server which pods wait for cards; it has `PATIENCE`, for the kubelet
   admits one pod at a time. If it does not answer, the pod that the node's lock names is taken as it
   was seen last.
2. Without either, the kubelet's own choice counts: a pod is not refused because the API server is away.
3. What follows from an answer, `Settled`, is written to the API server afterwards, by `lock_keeper`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.card_names import by_number
from biren_plugin.core.hami.annotations import FAILED, SUCCESS
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.hami.promises import (
    Match,
    Mismatch,
    Progress,
    Promise,
    Unmatched,
    match,
    preferred_by_promise,
    waiting,
)
from biren_plugin.core.model import DeviceList
from biren_plugin.core.parse.splits import WHOLE_GPU
from biren_plugin.errors import NodeError, NotReady
from biren_plugin.hami.node_objects import NodeObjects
from biren_plugin.notice import DEBUG, WARNING, Notice, say
from biren_plugin.records import frozen

PATIENCE: Final = 1.0
"""Seconds for the API server's answer; the whole Allocate has `ALLOCATE_DEADLINE`."""


@frozen
class Settled:
    """What an answer to the kubelet means for the pod's annotations, and for the node's lock."""

    promise: Promise
    count: int = 0
    """Entries that are allocated."""
    phase: str = ""
    """HAMi's phase for the pod, whose lock is then released; empty while its admission goes on."""


class PromisedCards:
    """A `CardScheduler`: HAMi's scheduler, as it wrote down what it chose."""

    resource: str = WHOLE_GPU

    def __init__(
        self,
        objects: NodeObjects,
        state: HamiState,
        settle: Callable[[Settled], None],
        held: Callable[[], Promise | None],
    ) -> None:
        """`held` gives what the pod of the node's lock was promised, as it was seen last."""
        self.offered = Board[DeviceList]()
        self._objects = objects
        self._state = state
        self._settle = settle
        self._held = held
        self._progress = Progress(since=int(time.time()))
        self._away = Notice()

    async def prefer(self, request: PreferenceRequest) -> list[str] | None:
        """The promised cards, if the kubelet may choose them; None for no opinion."""
        found = await self._waiting()
        if not found:
            return None
        must = request.must_include
        cards = preferred_by_promise(found, self._progress, request.available, must, request.size)
        return sorted(cards, key=by_number) if cards is not None else None

    async def admit(self, ids: Sequence[str]) -> bool:
        """Return whether HAMi promised these cards to the container. Raises `NotReady` if to another."""
        if not ids:
            return False
        found = await self._waiting()
        if found is None:
            text = (
                f"{', '.join(ids)}: allocated without HAMi's record: the API server did not answer"
            )
            self._state.note("unasked", text)
            return False
        match match(found, self._progress, ids):
            case Match(promise=promise, place=place, is_last=is_last):
                self._progress = self._progress.plus(promise, place)
                say("hami_matched", f"{', '.join(ids)}: HAMi's choice for {promise.name}", DEBUG)
                self._state.containers["matched"] += 1
                self._settle(Settled(promise, place + 1, SUCCESS if is_last else ""))
                return True
            case Mismatch(promise=promise, text=text):
                self._state.note("refused", text)
                if promise is not None:
                    self._settle(Settled(promise, phase=FAILED))
                raise NotReady(text)
            case Unmatched(text=text):
                self._state.note("unmatched", text)
                say("hami_unmatched", f"allocated {', '.join(ids)}: {text}", WARNING)
        return False

    async def refuse(self, ids: Sequence[str]) -> None:
        """The request was refused for another reason: HAMi's next pod should not wait for that one."""
        found = await self._waiting()
        for promise in found or ():
            if any(cards == frozenset(ids) for _, cards in self._progress.asked(promise)):
                self._settle(Settled(promise, phase=FAILED))
                return

    async def _waiting(self) -> list[Promise] | None:
        """The promises that the kubelet may ask for; None if unknown."""
        trouble = f"no answer from the API server in {PATIENCE:g} s"
        try:
            with trio.move_on_after(PATIENCE):
                pods = await self._objects.pending_pods()
                node = await self._objects.name()
                self._away.end(
                    "hami_pods_known", "HAMi's choice is known again: the API server answers"
                )
                return waiting(pods, node, self._progress)
        except NodeError as error:
            trouble = str(error)
        held = self._held()
        if held is not None and self._progress.left(held):
            return [held]
        text = f"HAMi's choice is unknown, the kubelet's own is allocated: {trouble}"
        self._away.begin("hami_pods_unknown", text, cause="away", reason=trouble)
        return None
