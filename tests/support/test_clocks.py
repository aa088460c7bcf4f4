"""A mock clock moves only while no thread is at work."""

import ast
import threading
from pathlib import Path

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.clocks import Gate, jump

TESTS = Path(__file__).parents[1]


async def work_until(finish: threading.Event, done: list[float]) -> None:
    with trio.move_on_after(60):
        await trio.to_thread.run_sync(finish.wait, abandon_on_cancel=True)
        done.append(trio.current_time())


async def test_a_jump_waits_for_a_running_thread(mock_clock: MockClock) -> None:
    finish = threading.Event()
    done: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work_until, finish, done)
        nursery.start_soon(jump, mock_clock, 3600)
        await wait_all_tasks_blocked()
        assert trio.current_time() == 0
        finish.set()
    assert (done, trio.current_time()) == ([0.0], 3600.0)


async def test_the_clock_does_not_jump_at_the_end_of_a_thread_whose_result_trio_has_not_seen(
    autojump_clock: MockClock,
) -> None:
    finished = threading.Event()
    look_for_events = trio.lowlevel.current_clock()._autojump  # type: ignore[attr-defined]
    await trio.to_thread.run_sync(finished.set)
    look_for_events()  # trio has looked before that end, and asks the clock after it
    assert trio.current_time() == 0


async def test_a_jump_does_not_wait_for_a_thread_at_a_gate(mock_clock: MockClock) -> None:
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: trio.to_thread.run_sync(gate.wait))
        await jump(mock_clock, 3600)
        gate.set()
    assert trio.current_time() == 3600


async def test_a_jump_waits_for_a_thread_released_by_a_gate(mock_clock: MockClock) -> None:
    gate, finish = Gate(), threading.Event()
    done: list[float] = []

    def pass_the_gate_and_work() -> None:
        gate.wait()
        finish.wait()

    async def work() -> None:
        await trio.to_thread.run_sync(pass_the_gate_and_work)
        done.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await jump(mock_clock, 1)
        gate.set()
        nursery.start_soon(jump, mock_clock, 1)
        await wait_all_tasks_blocked()
        finish.set()
    assert (done, trio.current_time()) == ([1.0], 2.0)


async def test_an_autojump_clock_waits_for_a_thread(autojump_clock: MockClock) -> None:
    def come_back_often() -> list[float]:
        return [trio.from_thread.run_sync(trio.current_time) for _ in range(100)]

    with trio.move_on_after(60):
        assert set(await trio.to_thread.run_sync(come_back_often)) == {0.0}
    await trio.sleep(60)
    assert trio.current_time() == 60


def test_only_this_helper_moves_a_clock() -> None:
    jumps = [
        f"{path}:{node.lineno}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name != "clocks.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "jump"
    ]
    assert not jumps, "use tests.support.clocks.jump"
