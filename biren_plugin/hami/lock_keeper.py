"""Writes down what was allocated, and sees to it that the node's lock goes when its pod needs it no more.

1. An answer to the kubelet is settled at once: the entries in the pod's annotation are emptied, the
   phase is set, the lock is released. What fails is tried again, and holds up no other pod; a pod that the
   API server lets nobody annotate keeps its annotations, and the lock is released all the same.
2. A lock that is there is judged at once, then every `LONGEST_WAIT` at most: its pod may have been
   deleted, refused by the kubelet, or allocated by a daemon that was killed.
3. Only a lock of a pod with whole cards of this node is released, or that of a pod that is gone.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.cluster.object_watch import Objects
from biren_plugin.core.hami.annotations import (
    FAILED,
    LOCK,
    PHASE,
    TO_ALLOCATE,
    Lock,
    annotation,
    read_entries,
    read_lock,
    without_entries,
)
from biren_plugin.core.hami.hami_state import HamiState
from biren_plugin.core.hami.leftover_lock import Keep, Release, fate_at_end, fate_of
from biren_plugin.core.hami.promises import Promise
from biren_plugin.core.parse.api_shapes import Object
from biren_plugin.errors import ApiError, ApiForbidden, ApiInvalid, NodeError
from biren_plugin.hami.node_objects import NodeObjects
from biren_plugin.hami.promised_cards import Settled
from biren_plugin.notice import DEBUG, INFO, WARNING, Notice, say

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 5.0
"""Seconds between two tries, doubled from try to try."""
_ROOM: Final = 64
"""Answers that may wait to be settled; the lock of one that found no room is judged all the same."""

Judge = Callable[[Lock, Object | None, str], Release | Keep]


class LockKeeper:
    """Settles answers and judges locks; what it knows outlives each life of its tasks."""

    def __init__(self, objects: NodeObjects, node: Board[Objects], state: HamiState) -> None:
        """`node` has the node object, and nothing else."""
        self._objects = objects
        self._node = node
        self._state = state
        self._put, self._answers = trio.open_memory_channel[Settled](_ROOM)
        self._unreadable = Notice()
        self._refused = Notice()
        self.held: Promise | None = None
        """What the lock's pod was promised, as it was seen last; None without a lock."""
        self._failed_uid = ""
        """The uid of the pod that was refused last: until the kubelet reports it as failed, it may count as admitted."""

    def settle(self, answer: Settled) -> None:
        """Leaves `answer` to `run_settling`; waits for nothing."""
        if answer.phase == FAILED:
            self._failed_uid = answer.promise.uid
        try:
            self._put.send_nowait(answer)
        except trio.WouldBlock:
            say(
                "hami_unsettled",
                f"HAMi's record of {answer.promise.name} is not updated: {_ROOM} others wait already",
                WARNING,
            )

    async def run_settling(self) -> None:
        """Settles each answer; of two for one pod, the later counts."""
        unsettled: dict[str, tuple[Settled, Notice]] = {}
        wait = FIRST_WAIT
        while True:
            with trio.move_on_after(wait if unsettled else math.inf):
                if len(unsettled) == _ROOM:
                    await trio.sleep_forever()
                answer = await self._answers.receive()
                _, notice = unsettled.pop(answer.promise.uid, (None, Notice()))
                unsettled[answer.promise.uid] = answer, notice
                wait = FIRST_WAIT
            for uid, (answer, notice) in [*unsettled.items()]:
                if await self._is_settled(answer, notice):
                    del unsettled[uid]
            wait = min(2 * wait, LONGEST_WAIT)

    async def _is_settled(self, answer: Settled, notice: Notice) -> bool:
        promise = answer.promise
        try:
            await self._finish_and_release(
                answer, lambda lock: lock.is_for(promise.namespace, promise.pod)
            )
        except NodeError as error:
            text = f"HAMi's lock and record of {promise.name} are updated later: {error}"
            notice.begin("hami_unsettled", text, pod=promise.name, reason=str(error))
            return False
        text = f"HAMi's lock and record of {promise.name} are updated"
        notice.end("hami_settled", text, pod=promise.name)
        return True

    async def _finish_and_release(
        self, answer: Settled, is_meant: Callable[[Lock], bool]
    ) -> Lock | None:
        """Gives the lock that was released; whatever becomes of the pod's record. Raises `ApiError`."""
        failure = None
        try:
            await self._finish(answer)
        except (ApiForbidden, ApiInvalid) as refusal:
            name = answer.promise.name
            text = f"HAMi's record of {name} stays as it is: {refusal}"
            self._refused.begin("hami_unsettled", text, pod=name, reason=str(refusal))
        except ApiError as error:
            failure = error
        released = await self._objects.release(is_meant) if answer.phase else None
        if failure is not None:
            raise failure
        return released

    async def _finish(self, answer: Settled) -> None:
        promise = answer.promise
        values: dict[str, str | None] = {}
        if answer.phase != FAILED:
            values[TO_ALLOCATE] = without_entries(promise.text, answer.count)
        if answer.phase:
            values[PHASE] = answer.phase
        await self._objects.annotate_pod(promise, values)

    async def run_judging(self) -> None:
        """Judges the lock as long as there is one. Raises `ApiError`."""
        wait, before = FIRST_WAIT, ""
        with self._node.subscribe() as changes:
            while True:
                if text := self._lock_text():
                    wait = FIRST_WAIT if text != before else min(2 * wait, LONGEST_WAIT)
                    await self._judge(text, fate_of)
                    with trio.move_on_after(wait):
                        await changes.receive()
                else:
                    self.held, self._state.lock = None, ""
                    self._end_unreadable()
                    await changes.receive()
                before = text

    async def release_at_end(self) -> None:
        """Releases the lock of a pod that this node's plugin would have served. Raises `ApiError`."""
        if text := annotation(await self._objects.node(), LOCK):
            await self._judge(text, fate_at_end)

    def _end_unreadable(self) -> None:
        text = "HAMi's lock on the node names a pod again, or is gone"
        self._unreadable.end("hami_lock_readable", text)

    def _lock_text(self) -> str:
        nodes: Iterable[Object] = (self._node.latest or {}).values()
        return next((annotation(each, LOCK) for each in nodes), "")

    async def _judge(self, text: str, judge: Judge) -> None:
        lock = read_lock(text)
        if lock is None:
            self._state.lock = text
            advice = f"HAMi's lock on the node reads {text!r}: remove the annotation {LOCK}"
            self._unreadable.begin("hami_lock_unreadable", advice)
            return
        self._end_unreadable()
        self._state.lock = f"{lock.namespace}/{lock.pod}"
        pod = await self._objects.pod(lock.namespace, lock.pod)
        fate = judge(lock, pod, await self._objects.name())
        self.held = fate.promise if isinstance(fate, Keep) else None
        if isinstance(fate, Keep):
            say("hami_lock_kept", f"HAMi's lock stays: {fate.why}", DEBUG)
            return
        if fate.promise is None:
            released = await self._objects.release(lambda found: found.text == lock.text)
        else:
            done = len(read_entries(fate.promise.text))
            phase = FAILED if fate.promise.uid == self._failed_uid else fate.phase
            answer = Settled(fate.promise, done, phase)
            released = await self._finish_and_release(answer, lambda found: found.text == lock.text)
        if released is not None:
            name = f"{lock.namespace}/{lock.pod}"
            text = f"released HAMi's lock on the node, taken for {name}: {fate.why}"
            say("hami_lock_released", text, INFO, pod=name)
