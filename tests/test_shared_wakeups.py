"""Idle tasks wake at the same moments."""

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.shared_wakeups import until_wakeup


async def test_tasks_that_began_apart_wake_together(autojump_clock: MockClock) -> None:
    woke: dict[float, list[float]] = {}

    async def wake_every(interval: float, first: float) -> None:
        await trio.sleep(first)
        while True:
            await trio.sleep(until_wakeup(interval))
            woke.setdefault(trio.current_time(), []).append(interval)

    with trio.move_on_after(10.5):
        async with trio.open_nursery() as nursery:
            for interval, first in ((1.0, 0.0), (1.0, 0.3), (2.0, 0.7), (5.0, 4.9)):
                nursery.start_soon(wake_every, interval, first)
    assert list(woke) == [float(second) for second in range(1, 11)]
    assert sorted(woke[5.0]) == [1.0, 1.0, 5.0]
    assert sorted(woke[10.0]) == [1.0, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("interval", [0.1, 0.3, 1.5, 10.0])
async def test_the_next_wakeup_is_always_ahead_and_at_most_an_interval_away(
    interval: float, autojump_clock: MockClock
) -> None:
    for _ in range(1000):
        before = trio.current_time()
        await trio.sleep(until_wakeup(interval))
        assert before < trio.current_time() <= before + interval * 1.0000001
