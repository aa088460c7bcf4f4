"""When the daemon is live, and when it is ready."""

import logging

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.observed import RIGHT_AFTER, KubeletView
from biren_plugin.core.rivals import Rival
from biren_plugin.daemon import Loop
from biren_plugin.daemon_state import SLACK, DaemonState, Role
from biren_plugin.errors import NodeError
from biren_plugin.monitor.status import status_document
from biren_plugin.worker_thread import LEAVE_DEADLINE, PATIENCE
from tests.support.cards import GPU, HALF, devices, listed
from tests.support.daemon_states import hold, new_state, register


async def test_the_daemon_is_ready_once_every_resource_is_registered() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)), listed(HALF, *devices(HALF, 1, 2)))
    assert state.unready() == []
    register(state, HALF, taken=False)
    assert state.unready() == [f"{HALF}: not registered with the kubelet"]


async def test_a_resource_taken_by_a_rival_is_unready_with_the_rivals_socket() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    register(state, GPU, taken=False)
    state.rivals[GPU] = Rival(("vendor.sock",), "its name is a Biren plugin's")
    [sentence] = state.unready()
    assert sentence.startswith(f"{GPU}: another plugin has taken it, vendor.sock in ")


async def test_the_longest_doubt_counts() -> None:
    state = new_state()
    for seconds in (5.0, 20.0, 1.0):
        state.doubt_for(seconds)
    assert state.doubts.latest is not None
    assert state.doubts.latest.until > trio.current_time() + 15.0


async def test_a_resource_waiting_for_its_restart_is_not_registered() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    told = Board[bool]()
    with state.life_of(GPU, told, Board()):
        told.post(True)
        assert state.is_registered(GPU)
    assert not state.is_registered(GPU)


async def test_the_end_of_an_earlier_life_keeps_the_later_ones_registration() -> None:
    state = new_state()
    earlier, later = Board[bool](), Board[bool]()
    later.post(True)
    with state.life_of(GPU, earlier, Board()):
        state.registered[GPU] = later
    assert state.is_registered(GPU)


async def test_a_node_without_cards_is_ready_but_an_unread_one_is_not() -> None:
    state = new_state()
    assert state.unready() == []
    state.role = "waiting"
    assert state.unready() == [], "nothing to register"
    hold(state, listed(GPU, *devices(GPU, 0)))
    assert state.unready() == ["the kubelet's directory has not been read yet"]
    state.inventory = Board()
    assert state.unready() == ["the host has not been read yet"]


async def test_a_standby_instance_is_ready_unless_the_holder_serves_nothing() -> None:
    state = new_state(listed(GPU, *devices(GPU, 0)))
    state.registered.clear()
    state.role = "standing by"
    assert state.unready() == []
    state.hindrance = "process 7 holds the lock and serves nothing"
    assert state.unready() == [state.hindrance]


@pytest.mark.parametrize("turned", [False, True], ids=["from the start", "after a turn"])
async def test_a_loop_without_progress_is_named(autojump_clock: MockClock, *, turned: bool) -> None:
    state = new_state(host=10.0, library=3600.0)
    if turned:
        await trio.sleep(30.0)
        state.counters.turned("host", 0.1)
    await trio.sleep(10.0 + SLACK)
    assert state.stuck() == []
    await trio.sleep(1.0)
    assert state.stuck() == ["host: no progress for 41 s"]
    state.counters.turned("host", 0.1)
    assert state.stuck() == []


async def test_changes_before_the_question_about_the_first_one_wake_nobody(
    autojump_clock: MockClock,
) -> None:
    state = DaemonState()

    def announce() -> int:
        state.ask_soon(1.5)
        assert state.doubts.latest is not None
        return state.doubts.latest.reasons

    assert [announce(), announce()] == [1, 1]
    await trio.sleep(RIGHT_AFTER)
    assert [announce(), announce()] == [2, 2]
    await trio.sleep(RIGHT_AFTER / 4)
    state.kubelet_view.post(KubeletView(trio.current_time()))  # asked for another reason
    await trio.sleep(RIGHT_AFTER / 4)
    assert [announce(), announce()] == [3, 3]


@pytest.mark.parametrize(("role", "shown"), [("serving", True), ("standing by", False)])
async def test_what_a_loop_fails_on_is_a_problem_of_the_instance_that_serves_until_it_runs_again(
    autojump_clock: MockClock, role: Role, shown: bool
) -> None:
    state = new_state()
    state.role = role
    full = [NodeError("the disk is full; make room")]

    async def run() -> None:
        if full:
            raise full[0]
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Loop("labels", run, is_vital=False).keep, state)
        await trio.sleep(60)
        problem = "labels: the disk is full; make room"
        assert status_document(state)["problems"] == ([problem] if shown else [])
        full.clear()
        await trio.sleep(60)
        assert status_document(state)["problems"] == []
        nursery.cancel_scope.cancel()


async def test_a_loop_that_a_hanging_disk_fails_again_and_again_is_not_logged_as_running(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def hang() -> None:
        await trio.sleep(PATIENCE + LEAVE_DEADLINE)
        raise NodeError("the disk hangs")

    with trio.move_on_after(300):
        await Loop("status", hang, is_vital=False).keep(new_state())
    [line] = [each.getMessage() for each in caplog.records]
    assert line.endswith("the disk hangs")
