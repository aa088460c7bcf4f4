"""The counted plugin answers as the plain one, and each call is counted once, by its outcome."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from purerpc import InternalError
from trio.testing import wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import ContainerEdits, edits_for
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.daemon_state import Counters, DaemonState
from biren_plugin.device_plugin.doubtful_cards import DoubtfulCards
from biren_plugin.device_plugin.node import Streams
from biren_plugin.device_plugin.plugin_server import (
    CountedPlugin,
    DevicePlugin,
    serve_plugin,
    watch_devices,
)
from biren_plugin.errors import RequestRefused
from biren_plugin.wire.device_plugin import PluginClient
from biren_plugin.wire.unix_grpc import CallEnded, Channel, with_channel
from biren_plugin.worker_thread import WorkerThread
from tests.support.cards import GPU, devices, listed


def counted(offered: Board[DeviceList]) -> tuple[CountedPlugin, DevicePlugin, Counters]:
    counters = Counters()
    plugin = DevicePlugin(
        offered,
        Board[Inventory](),
        lambda: watch_devices(offered, Board[Streams]()),
        "packed",
        edits_for,
        DoubtfulCards(GPU, DaemonState()),
    )
    return CountedPlugin(plugin, GPU, counters), plugin, counters


async def test_the_answers_are_those_of_the_plain_plugin() -> None:
    offered = Board[DeviceList]()
    offered.post(listed(GPU, *devices(GPU, 0, 1)))
    both, plugin, counters = counted(offered)
    wish = [PreferenceRequest(("card_1", "card_0"), (), 1)]
    assert await both.allocate([["card_0"]]) == await plugin.allocate([["card_0"]])
    assert await both.prefer(wish) == await plugin.prefer(wish) == [["card_0"]]
    assert both.watch is plugin.watch
    assert counters.allocations == {(GPU, "answered"): 1}
    assert sum(counters.allocating.counts) == sum(counters.preferring.counts) == 1


async def test_the_seconds_of_a_call_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = Board[DeviceList]()
    offered.post(listed(GPU, *devices(GPU, 0)))
    both, _, counters = counted(offered)
    readings = iter([100.0, 100.25, 200.0, 200.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings))
    await both.allocate([["card_0"]])
    await both.prefer([PreferenceRequest(("card_0",), (), 1)])
    assert (counters.allocating.total, counters.preferring.total) == (0.25, 0.5)


async def test_refusals_and_bugs_are_counted_and_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered = Board[DeviceList]()
    offered.post(listed(GPU))
    both, plugin, counters = counted(offered)
    with pytest.raises(RequestRefused):
        await both.allocate([["card_7"]])
    monkeypatch.setattr(plugin, "allocate", lambda _requests: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await both.allocate([["card_7"]])
    assert counters.allocations == {(GPU, "refused"): 1, (GPU, "failed"): 1}
    assert sum(counters.allocating.counts) == 2


async def test_only_an_answered_allocation_is_passed_on_with_the_ids_of_all_its_containers() -> (
    None
):
    offered = Board[DeviceList]()
    offered.post(listed(GPU, *devices(GPU, 0, 1, 2)))
    _, plugin, counters = counted(offered)
    allocated: list[list[str]] = []
    both = CountedPlugin(plugin, GPU, counters, lambda ids: allocated.append([*ids]))
    with pytest.raises(RequestRefused):
        await both.allocate([["card_0"], ["card_7"]])
    await both.allocate([["card_0"], ["card_1", "card_2"]])
    assert allocated == [["card_0", "card_1", "card_2"]]


class _Chooser:
    """Another scheduler of whole cards, which notes what it is told."""

    resource = GPU

    def __init__(self) -> None:
        self.offered = Board[DeviceList]()
        self.told: list[tuple[str, list[str]]] = []

    async def prefer(self, request: PreferenceRequest) -> list[str] | None:
        return None

    async def admit(self, ids: Sequence[str]) -> bool:
        self.told.append(("admit", [*ids]))
        return True

    async def refuse(self, ids: Sequence[str]) -> None:
        self.told.append(("refuse", [*ids]))


async def test_another_scheduler_is_told_of_each_container_whether_it_is_admitted_or_refused() -> (
    None
):
    offered, chooser = Board[DeviceList](), _Chooser()
    offered.post(listed(GPU, *devices(GPU, 0, 1)))
    streams = Board[Streams]()
    plugin = DevicePlugin(
        offered,
        Board[Inventory](),
        lambda: watch_devices(offered, streams),
        "packed",
        edits_for,
        DoubtfulCards(GPU, DaemonState()),
        chooser,
    )
    await plugin.allocate([["card_0"], ["card_1"]])
    with pytest.raises(RequestRefused):
        await plugin.allocate([["card_7"]])
    assert chooser.told == [("admit", ["card_0"]), ("admit", ["card_1"]), ("refuse", ["card_7"])]


async def test_a_choice_is_explained_at_the_debug_level_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    offered = Board[DeviceList]()
    offered.post(listed(GPU, *devices(GPU, 0, 1)))
    _, plugin, _ = counted(offered)
    for level, lines in (("INFO", []), ("DEBUG", [f"{GPU}: would choose card_0: alone"])):
        caplog.set_level(level)
        await plugin.prefer([PreferenceRequest(("card_1", "card_0"), (), 1)])
        assert caplog.messages == lines


class _Broken(DevicePlugin):
    """Fails each allocation on a bug."""

    async def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerEdits]:
        raise ZeroDivisionError(f"{requests}")


async def test_calls_that_fail_on_a_bug_are_logged_and_end_the_server_once_there_are_five(
    caplog: pytest.LogCaptureFixture,
) -> None:
    offered = Board[DeviceList]()
    doubtful = DoubtfulCards(GPU, DaemonState())
    watch = counted(offered)[1].watch
    broken = _Broken(offered, Board[Inventory](), watch, "packed", edits_for, doubtful)

    async def allocate(channel: Channel) -> None:
        with pytest.raises((InternalError, CallEnded)):
            await PluginClient(channel).allocate(["card_0"])

    answered = 0
    with tempfile.TemporaryDirectory(prefix="br") as path, trio.fail_after(60):
        own = Path(path) / "plugin.sock"
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_plugin, own, broken, WorkerThread())
                for number in range(1, 5):
                    await with_channel(await trio.open_unix_socket(own), allocate)
                    assert caplog.text.count("a call failed on a bug of the plugin") == number
                    await wait_all_tasks_blocked()
                    answered = number
                await with_channel(await trio.open_unix_socket(own), allocate)
                await trio.sleep_forever()
    assert answered == 4
