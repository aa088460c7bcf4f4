"""A daemon that stops waits for the calls under way, and not for longer than they take."""

import trio
from trio.testing import MockClock

from biren_plugin.last_calls import LastCalls


async def test_the_wait_ends_with_the_last_of_the_calls(autojump_clock: MockClock) -> None:
    calls = LastCalls()

    async def answer_after(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
        with calls.one():
            task_status.started()
            await trio.sleep(seconds)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for seconds in (1, 3):
            await nursery.start(answer_after, seconds)
        await calls.ended()
        assert trio.current_time() == began + 3
