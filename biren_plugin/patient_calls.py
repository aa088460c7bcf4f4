"""Makes blocking calls whose disk may hang, and reports a hang in the log and, through the notice, in `status`."""

from collections.abc import Callable
from typing import TypeVar

import outcome
import trio

from biren_plugin.errors import too_slow
from biren_plugin.notice import Notice
from biren_plugin.worker_thread import PATIENCE, WorkerThread

T = TypeVar("T")


async def run_patiently(
    thread: WorkerThread, call: Callable[[], T], notice: Notice, doing: str
) -> T:
    """Return the result of `call`, which `thread` makes once, however long it takes.

    A hang begins in `notice` after `PATIENCE`; its end is logged too. `doing` begins their texts, as in
    `writing /etc/cdi/biren.yaml`. Raises what `call` raises, and `NoThread`.
    """
    made: list[outcome.Outcome[T]] = []

    def call_once() -> outcome.Outcome[T]:
        # A wait that was given up leaves its call under way: the next wait gets the result of that call.
        if not made:
            made.append(outcome.capture(call))
        return made[0]

    while True:
        with trio.move_on_after(PATIENCE):
            done = await thread.run(call_once)
            notice.end("disk_answers", f"{doing} no longer hangs")
            return done.unwrap()
        notice.begin("disk_hangs", too_slow(doing, PATIENCE))
