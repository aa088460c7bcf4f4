"""A waiting instance reports the holder; one that serves nothing is named, and makes it unready."""

import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.model import Inventory
from biren_plugin.device_plugin import waiting as waiting_module
from biren_plugin.device_plugin.folder_lock import LockHolder
from biren_plugin.device_plugin.kubelet_folder import (
    KubeletFolder,
    read_kubelet_folder,
    socket_name,
)
from biren_plugin.device_plugin.node import Node
from biren_plugin.device_plugin.waiting import (
    ANSWER_DEADLINE,
    CHECK_INTERVAL,
    DESCRIBE_INTERVAL,
    IDLE_AFTER,
    Waiting,
)
from biren_plugin.unix_sockets import UnixListener
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Server
from tests.support.cards import GPU, devices, listed
from tests.support.clocks import Gate
from tests.support.daemon_states import new_state

IDLE = "serves no GPU of this node"
LONG = IDLE_AFTER + ANSWER_DEADLINE + 2


@pytest.fixture
async def node(path: Path, autojump_clock: MockClock) -> Node:
    return Node(path, Board[KubeletFolder](), new_state(listed(GPU, *devices(GPU, 0))))


@pytest.fixture
async def waiting(node: Node) -> AsyncIterator[Waiting]:
    """Its watch over the holder runs."""
    async with trio.open_nursery() as nursery:
        made = Waiting(node)
        nursery.start_soon(made.watch_holder)
        yield made
        nursery.cancel_scope.cancel()


async def wait_for(seconds: float, waiting: Waiting, node: Node) -> None:
    """The lock is tried again and again, in vain."""
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        node.folder.post(read_kubelet_folder(node.path))
        waiting.hindered("held")
        await trio.sleep(0.25)


@pytest.fixture
def holders(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], LockHolder | None]], None]:
    """Sets what `/proc` shows of the holder."""

    def show(find: Callable[[], LockHolder | None]) -> None:
        monkeypatch.setattr(waiting_module, "find_lock_holder", lambda _path: find())

    return show


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[None]:
    """The holder answers calls on its socket."""
    server = Server([], DEFAULT_LIMITS, lambda error: None)
    async with trio.open_nursery() as nursery:
        listener = UnixListener(node.path / socket_name(GPU))
        nursery.start_soon(trio.serve_listeners, server.handle, [listener])
        yield
        nursery.cancel_scope.cancel()


async def test_a_holder_that_serves_nothing_is_named_once_after_some_seconds(
    waiting: Waiting,
    node: Node,
    caplog: pytest.LogCaptureFixture,
    holders: Callable[[Callable[[], LockHolder | None]], None],
    autojump_clock: MockClock,
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[int] = []

    def find() -> LockHolder:
        asked.append(threading.get_ident())
        return LockHolder(1234, "backup --all")

    holders(find)
    await trio.sleep(100)
    await wait_for(IDLE_AFTER - 1, waiting, node)
    assert node.state.unready() == []
    assert "standing by" in caplog.text
    await wait_for(20, waiting, node)
    [sentence] = node.state.unready()
    assert sentence.startswith(f"process 1234 (backup --all) holds the lock on {node.path}")
    assert caplog.text.count(IDLE) == 1
    assert len(asked) == 1
    assert asked != [threading.get_ident()]
    waiting.over()
    assert node.state.hindrance == ""
    assert "taking over" in caplog.text


async def test_another_idle_holder_is_named_in_its_turn(
    waiting: Waiting,
    node: Node,
    caplog: pytest.LogCaptureFixture,
    holders: Callable[[Callable[[], LockHolder | None]], None],
    autojump_clock: MockClock,
) -> None:
    holders(lambda: LockHolder(1234, "backup"))
    await wait_for(LONG, waiting, node)
    holders(lambda: LockHolder(1235, "backup again"))
    await wait_for(DESCRIBE_INTERVAL + CHECK_INTERVAL, waiting, node)
    [sentence] = node.state.unready()
    assert sentence.startswith("process 1235 (backup again) holds the lock")
    assert caplog.text.count(IDLE) == 2


async def test_a_hanging_proc_delays_the_warning_only_by_seconds(
    waiting: Waiting,
    node: Node,
    holders: Callable[[Callable[[], LockHolder | None]], None],
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    holders(gate.wait)
    await wait_for(LONG + 3, waiting, node)
    [sentence] = node.state.unready()
    assert sentence.startswith("a process that is not visible from here holds the lock")
    gate.set()


async def test_the_warning_about_an_invisible_holder_gives_advice(
    waiting: Waiting, node: Node, autojump_clock: MockClock
) -> None:
    await wait_for(LONG, waiting, node)
    [sentence] = node.state.unready()
    assert sentence.startswith("a process that is not visible from here holds the lock")
    assert sentence.endswith(f"on the node, `lslocks` or `fuser -v {node.path}` shows its id")


async def test_a_holder_that_serves_is_never_a_fault(
    waiting: Waiting, node: Node, autojump_clock: MockClock
) -> None:
    async with served(node):
        await wait_for(10 * IDLE_AFTER, waiting, node)
        assert node.state.unready() == []


async def test_a_stopped_holder_does_not_serve(
    waiting: Waiting, node: Node, autojump_clock: MockClock
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.path / socket_name(GPU)))
        listener.listen(100)  # the kernel takes connections for it, and it answers none
        await wait_for(LONG, waiting, node)
    [sentence] = node.state.unready()
    assert f"{IDLE} ({socket_name(GPU)}: no answer in {ANSWER_DEADLINE:g} s)" in sentence


async def test_the_return_of_a_holder_is_logged(
    waiting: Waiting, node: Node, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    await wait_for(LONG, waiting, node)
    assert node.state.unready()
    assert "serves the node" not in caplog.text
    async with served(node):
        await wait_for(10, waiting, node)
        assert node.state.unready() == []
    assert caplog.text.count("serves the node") == 1


async def test_a_dead_instances_socket_is_not_served(
    waiting: Waiting, node: Node, autojump_clock: MockClock
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.path / socket_name(GPU)))
    await wait_for(LONG, waiting, node)
    [sentence] = node.state.unready()
    assert "Connection refused" in sentence


async def test_a_holder_on_a_node_without_cards_has_nothing_to_serve(
    waiting: Waiting, node: Node, autojump_clock: MockClock
) -> None:
    node.state.inventory.post(Inventory())
    await wait_for(3 * IDLE_AFTER, waiting, node)
    assert node.state.unready() == []


async def test_a_directory_that_became_writable_while_another_instance_holds_it_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    waiting = Waiting(Node(path, Board[KubeletFolder](), new_state()))
    for hindrance in ("unwritable", "held"):
        waiting.hindered(hindrance)
    assert f"sockets can be created in {path} again" in caplog.text


async def test_an_idle_holder_is_named_again_after_the_directory_was_missing(
    waiting: Waiting,
    node: Node,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    for times in (1, 2):
        await wait_for(LONG, waiting, node)
        assert caplog.text.count(IDLE) == times
        waiting.hindered("missing")


async def test_an_unwritable_directory_is_logged_once_and_makes_the_instance_unready(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state = new_state(listed(GPU, *devices(GPU, 0)))
    waiting = Waiting(Node(path, Board[KubeletFolder](), state))
    for _ in range(3):
        waiting.hindered("unwritable")
    [sentence] = state.unready()
    assert sentence.startswith(f"cannot create a socket in {path}")
    assert caplog.text.count("cannot create a socket") == 1
    waiting.hindered("missing")
    assert state.unready() == ["the kubelet's directory does not exist yet"]
    waiting.over()
    waiting.over()
    assert caplog.text.count(f"sockets can be created in {path} again") == 1
