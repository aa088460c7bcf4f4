"""Verdicts that change become Kubernetes Events about the node, counted, bounded, and of no consequence."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.cluster import node_events
from biren_plugin.cluster.credentials import PodCredentials
from biren_plugin.cluster.node_events import PATH, Allowance, NodeEvents
from biren_plugin.core.event_objects import NodeEvent, NodeEventsState, again, new_event
from biren_plugin.core.model import Device, DeviceList, Inventory
from tests.support.api_server import Object, StandInApiServer, stand_in_api_server
from tests.support.cards import GPU, card

NOW = 1_800_000_000.0
FAULT = "device node /dev/biren/card_0 is missing"


def node_with(*reasons: str, warnings: tuple[str, ...] = ()) -> Inventory:
    """Two cards, the first with these faults."""
    first = Device(card(0), GPU, reasons=reasons, warnings=warnings)
    return Inventory((DeviceList(GPU, (first, Device(card(1), GPU))),))


class Writing:
    """A daemon's Events, and what the API server has of them."""

    def __init__(self, server: StandInApiServer, folder: Path) -> None:
        self.server = server
        self.inventory = Board[Inventory]()
        self.state = NodeEventsState()
        load = PodCredentials(server.account(folder), folder).load
        self.events = NodeEvents(load, "node-7", self.inventory, self.state)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.events.run)
            yield
            nursery.cancel_scope.cancel()

    def stored(self) -> list[Object]:
        with self.server.changed:
            return [found for path, found in self.server.objects.items() if path.startswith(PATH)]

    async def verdict(self, *reasons: str, events: int = 1, **more: Any) -> None:
        """Post the next inventory; return when its Events are written or dropped."""
        done = self.state.written + self.state.dropped + events
        self.inventory.post(node_with(*reasons, **more))
        await until(lambda: self.state.written + self.state.dropped == done)


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for what another task does."""
    with trio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - a counter sets no event
            await trio.sleep(0.005)


@pytest.fixture
def writing(tmp_path: Path) -> Any:
    with stand_in_api_server() as server:
        yield Writing(server, tmp_path)


async def test_a_fault_and_its_end_are_events_about_the_node(writing: Writing) -> None:
    async with writing.running():
        await writing.verdict(FAULT)
        await writing.verdict()
        await writing.verdict(warnings=("hot",))
    fault, end, warned = writing.stored()
    assert fault["involvedObject"] == {
        "apiVersion": "v1", "kind": "Node", "name": "node-7", "uid": "node-7",
    }  # fmt: skip
    assert (fault["type"], fault["reason"]) == ("Warning", "BirenGpuUnhealthy")
    assert fault["message"] == f"{GPU}: card_0 is Unhealthy: {FAULT}"
    assert fault["metadata"]["namespace"] == "default"
    assert fault["count"] == 1
    assert (end["type"], end["reason"]) == ("Normal", "BirenGpuHealthy")
    assert (warned["type"], warned["reason"]) == ("Warning", "BirenGpuWarning")


async def test_changes_of_one_moment_are_events_of_their_own(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biren_plugin.cluster.node_events.time.time", lambda: NOW)
    async with writing.running():
        await writing.verdict(FAULT, events=2, warnings=("hot",))
        await writing.verdict()
    reasons = [each["reason"] for each in writing.stored()]
    assert sorted(reasons) == ["BirenGpuHealthy", "BirenGpuUnhealthy", "BirenGpuWarning"]


async def test_what_happens_again_is_counted_in_its_event(writing: Writing) -> None:
    async with writing.running():
        for _ in range(3):
            await writing.verdict(FAULT)
            await writing.verdict()
        assert [each["count"] for each in writing.stored()] == [3, 3]
        for path in [path for path in writing.server.objects if path.startswith(PATH)]:
            writing.server.delete(path)  # as the API server does after an hour
        await writing.verdict(FAULT)
    (fault,) = writing.stored()
    assert fault["count"] == 1


async def test_an_event_waits_for_an_api_server_that_is_away(
    writing: Writing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_events, "_FIRST_WAIT", 0.02)
    writing.server.refuse = lambda _method, _path: (503, "away")
    async with writing.running():
        writing.inventory.post(node_with(FAULT))
        await until(lambda: len(writing.server.requests) >= 3)
        assert "away" in writing.state.trouble
        writing.server.refuse = lambda _method, _path: None
        await until(lambda: bool(writing.stored()))
        await until(lambda: not writing.state.trouble)
    lines = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(lines) == 1


async def test_a_refused_event_is_given_up_and_the_next_one_is_tried(writing: Writing) -> None:
    writing.server.refuse = lambda _method, _path: (403, "events is forbidden")
    async with writing.running():
        await writing.verdict(FAULT)
        assert (writing.state.written, writing.state.dropped) == (0, 1)
        assert "events is forbidden" in writing.state.trouble
        writing.server.refuse = lambda _method, _path: None
        await writing.verdict()
    assert [each["reason"] for each in writing.stored()] == ["BirenGpuHealthy"]


async def test_an_event_whose_answer_was_lost_is_not_written_twice(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_events, "_FIRST_WAIT", 0.02)
    lost: list[int] = []

    def lose(method: str, _path: str) -> tuple[int, bytes] | None:
        if method != "POST" or lost:
            return None
        lost.append(1)
        name = new_event(NodeEvent("R", "", True), "node-7", NOW)
        writing.server.put(f"{PATH}/{name['metadata']['name']}", name)
        return 503, b"{}"

    monkeypatch.setattr("biren_plugin.cluster.node_events.time.time", lambda: NOW)
    writing.server.plain = lose
    async with writing.running():
        await writing.verdict(FAULT)
    assert len(writing.stored()) == 1
    assert writing.state.written == 1


async def test_a_card_that_flaps_costs_the_api_server_a_bounded_number_of_writes(
    writing: Writing, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    async def call(*asked: Any) -> Object:
        writes.append(asked)
        await trio.sleep(1)
        return {}

    monkeypatch.setattr(writing.events._api, "call", call)
    async with writing.running():
        for number in range(200):
            writing.inventory.post(node_with(*([f"temperature {number}"] * (number % 2))))
            await trio.sleep(0.1)
        await trio.sleep(100)
        assert len(writes) == 25
        assert writing.state.written + writing.state.dropped == 200 - 1  # the first has no fault


def test_the_allowance_comes_back_with_time() -> None:
    allowance = Allowance()
    assert [allowance.take(0.0) for _ in range(26)] == [True] * 25 + [False]
    assert not allowance.take(299.0)
    assert allowance.take(301.0)
    assert [allowance.take(1e6) for _ in range(26)] == [True] * 25 + [False]


async def test_a_restart_after_a_bug_writes_nothing_again(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with writing.running():
        await writing.verdict(FAULT)
    with monkeypatch.context() as patched, pytest.RaisesGroup(ZeroDivisionError):
        patched.setattr(node_events, "new_event", lambda *_: 1 / 0)
        writing.inventory.post(node_with(FAULT, warnings=("hot",)))
        await writing.events.run()
    async with writing.running():
        await writing.verdict()
    fault, end = writing.stored()
    assert (fault["reason"], fault["count"]) == ("BirenGpuUnhealthy", 1)
    assert end["reason"] == "BirenGpuHealthy"


def test_an_event_that_happens_again_has_a_new_count_and_time() -> None:
    assert again(3, 1_700_000_000.0) == {"count": 3, "lastTimestamp": "2023-11-14T22:13:20Z"}
