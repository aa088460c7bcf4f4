"""A cancelled caller leaves a call behind, and nothing that the call has opened."""

import gc
from functools import partial
from weakref import WeakSet

import pytest
import trio
from trio.testing import MockClock

from biren_plugin import worker_thread
from biren_plugin.errors import NoThread
from biren_plugin.worker_thread import LEAVE_DEADLINE, PATIENCE, WorkerThread
from tests.support.clocks import Gate, settled

Released = list[object]


async def test_what_is_opened_belongs_to_the_caller() -> None:
    released: Released = []
    assert await WorkerThread().acquire(lambda: "opened", released.append) == "opened"
    assert not released


async def test_what_a_hanging_call_opens_late_is_released_in_the_thread(
    autojump_clock: MockClock,
) -> None:
    gate, released = Gate(), list[object]()

    def open_late() -> str:
        gate.wait()
        return "opened"

    began = trio.current_time()
    with trio.move_on_after(10) as scope:
        await WorkerThread().acquire(open_late, released.append)
    assert scope.cancelled_caught
    assert trio.current_time() - began == 10 + LEAVE_DEADLINE
    assert not released
    gate.set()
    await settled()
    assert released == ["opened"]


async def test_what_is_opened_in_the_moment_of_the_cancellation_is_released_once() -> None:
    token = trio.lowlevel.current_trio_token()
    for _ in range(50):  # the thread may be ahead of the caller, or behind it
        released: Released = []
        with trio.CancelScope() as scope:

            def open_and_cancel(scope: trio.CancelScope = scope) -> str:
                token.run_sync_soon(scope.cancel)
                return "opened"

            await WorkerThread().acquire(open_and_cancel, released.append)
        assert scope.cancelled_caught
        await settled()
        assert released == ["opened"]


async def test_what_is_opened_in_that_moment_is_released_although_the_next_call_hangs(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, opening, following = WorkerThread(), Gate(), Gate()
    released: Released = []
    token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()
    open_ = worker_thread._Handing.open

    def open_and_cancel(handing: worker_thread._Handing[str]) -> str:
        opened = open_(handing)
        token.run_sync_soon(scope.cancel)
        return opened

    monkeypatch.setattr(worker_thread._Handing, "open", open_and_cancel)

    def open_late() -> str:
        opening.wait()
        return "opened"

    async def acquire() -> None:
        with scope:
            await thread.acquire(open_late, released.append)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquire)
        await settled()
        nursery.start_soon(thread.run, following.wait)
        await settled()
        opening.set()
        await trio.sleep(10)
        assert scope.cancelled_caught
        following.set()
    assert released == ["opened"]


async def test_of_calls_that_were_cancelled_behind_a_hanging_one_nothing_is_kept(
    autojump_clock: MockClock,
) -> None:
    thread, gate = WorkerThread(), Gate()
    kept: WeakSet[Gate] = WeakSet()
    released: Released = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, gate.wait)
        await settled()
        for _ in range(3):
            with trio.move_on_after(1):
                kept.add(resource := Gate())
                await thread.acquire(resource.wait, released.append)
            del resource
        await settled()
        gc.collect()
        assert not kept
        gate.set()
    assert not released


async def test_a_call_that_fails_has_nothing_to_release() -> None:
    released: Released = []
    with pytest.raises(ZeroDivisionError):
        await WorkerThread().acquire(lambda: 1 / 0, released.append)
    assert not released


async def test_without_an_answer_in_time_the_other_value_counts(autojump_clock: MockClock) -> None:
    thread, gate = WorkerThread(), Gate()
    assert await thread.run_or(lambda: 1, otherwise=2) == 1
    began = trio.current_time()
    assert await thread.run_or(gate.wait, otherwise=2) == 2
    assert await thread.run_or(lambda: 1, otherwise=2) == 2, "it overtook the call before"
    assert trio.current_time() - began == 2 * PATIENCE
    gate.set()
    assert await thread.run_or(lambda: 1, otherwise=2) == 1


async def test_without_a_thread_the_other_value_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    assert await WorkerThread().run_or(lambda: 1, otherwise=2) == 2
    with pytest.raises(NoThread, match="processes have run out"):
        await WorkerThread().acquire(lambda: 1, partial(pytest.fail, "it opened nothing"))
