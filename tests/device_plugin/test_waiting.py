"""An instance that waits says for whom; a holder that serves nothing is named, and makes it unready."""

import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.model import Inventory
from biren_plugin.device_plugin import waiting as waiting_module
from biren_plugin.device_plugin.folder import KubeletFolder, read_kubelet_folder, socket_name
from biren_plugin.device_plugin.node import Node
from biren_plugin.device_plugin.waiting import IDLE_AFTER, Waiting
from biren_plugin.host.lock_holder import LockHolder
from tests.support.cards import GPU, devices, listed
from tests.support.daemon_states import new_state

IDLE = "serves no GPU of this node"


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="br") as made:
        yield Path(made)


@pytest.fixture
async def node(path: Path, autojump_clock: MockClock) -> Node:
    folder = Board[KubeletFolder]()
    return Node(path, folder, new_state(listed(GPU, *devices(GPU, 0))))


async def wait_for(seconds: float, waiting: Waiting, node: Node) -> None:
    """The lock is tried again and again, in vain."""
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        node.folder.post(read_kubelet_folder(node.path))
        await waiting.hindered("held")
        await trio.sleep(0.25)


async def test_holder_that_serves_nothing_is_named_after_some_seconds_and_once(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    holder = LockHolder(1234, "backup --all")
    monkeypatch.setattr(waiting_module, "find_lock_holder", lambda _path: holder)
    waiting = Waiting(node)
    await wait_for(IDLE_AFTER - 1, waiting, node)
    assert node.state.unready() == []
    assert "standing by" in caplog.text
    await wait_for(20, waiting, node)
    [sentence] = node.state.unready()
    assert sentence.startswith(f"process 1234 (backup --all) holds the lock on {node.path}")
    assert caplog.text.count(IDLE) == 1
    waiting.over()
    assert node.state.hindrance == ""
    assert "taking over" in caplog.text


async def test_holder_that_cannot_be_seen_is_looked_for_on_the_node(node: Node) -> None:
    await wait_for(IDLE_AFTER + 2, Waiting(node), node)
    [sentence] = node.state.unready()
    assert sentence.startswith("a process that is not visible from here holds the lock")
    assert "lslocks" in sentence


async def test_holder_that_serves_is_no_trouble_however_long_it_does(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.path / socket_name(GPU)))
        listener.listen(100)
        await wait_for(3 * IDLE_AFTER, Waiting(node), node)
        assert node.state.unready() == []


async def test_holder_that_serves_again_is_no_trouble_any_more(node: Node) -> None:
    waiting = Waiting(node)
    await wait_for(IDLE_AFTER + 2, waiting, node)
    assert node.state.unready()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.path / socket_name(GPU)))
        listener.listen(100)
        await wait_for(2, waiting, node)
        assert node.state.unready() == []


async def test_socket_that_a_dead_instance_left_is_not_served(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.path / socket_name(GPU)))
    await wait_for(IDLE_AFTER + 2, Waiting(node), node)
    assert node.state.unready()


async def test_holder_on_a_node_without_cards_has_nothing_to_serve(node: Node) -> None:
    node.state.inventory.post(Inventory())
    await wait_for(3 * IDLE_AFTER, Waiting(node), node)
    assert node.state.unready() == []


async def test_directory_that_cannot_be_written_is_said_once_and_makes_it_unready(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Waiting(node)
    for _ in range(3):
        await waiting.hindered("unwritable")
    [sentence] = node.state.unready()
    assert sentence.startswith(f"cannot create a socket in {node.path}")
    assert caplog.text.count("cannot create a socket") == 1
    await waiting.hindered("missing")
    assert node.state.unready() == ["the kubelet's folder is not there yet"]
