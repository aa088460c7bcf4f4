"""A call whose disk hangs is logged and shown, and its result arrives all the same."""

import logging

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.notice import Notice
from biren_plugin.patient_calls import run_patiently
from biren_plugin.worker_thread import PATIENCE, WorkerThread
from tests.support.clocks import Gate

HANGS = "writing /x takes more than 5 s, as when a disk hangs; see `dmesg` on the node"


async def test_a_call_that_hangs_is_made_once_shown_meanwhile_and_returns_its_result(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate, calls, shown, results = Gate(), list[int](), list[str](), list[str]()

    def call() -> str:
        calls.append(1)
        gate.wait()
        return "done"

    async def make() -> None:
        notice = Notice(shown.append)
        results.append(await run_patiently(WorkerThread(), call, notice, "writing /x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        await trio.sleep(10 * PATIENCE)
        assert shown[-1] == HANGS
        gate.set()
    assert (len(calls), results, shown[-1]) == (1, ["done"], "")
    lines = [each.getMessage() for each in caplog.records]
    assert lines == [HANGS, "writing /x no longer hangs"]


async def test_a_call_that_fails_after_it_hung_raises_its_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def call() -> None:
        gate.wait()
        raise ZeroDivisionError

    async def open_late() -> None:
        await trio.sleep(2 * PATIENCE)
        gate.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_late)
        with pytest.raises(ZeroDivisionError):
            await run_patiently(WorkerThread(), call, Notice(), "writing /x")


async def test_a_quick_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert await run_patiently(WorkerThread(), lambda: 7, Notice(), "writing /x") == 7
    assert not caplog.records
