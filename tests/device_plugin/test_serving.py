"""The serving instance runs a subtree for each resource, and removes lost resources from the CDI file."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.cdi.spec import spec_for
from biren_plugin.core.model import DeviceList
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.folder_lock import hold_folder
from biren_plugin.device_plugin.kubelet_folder import (
    KUBELET_SOCKET,
    KubeletFolder,
    read_kubelet_folder,
)
from biren_plugin.device_plugin.node import Node
from biren_plugin.device_plugin.serving import Serving
from biren_plugin.device_plugin.waiting import IDLE_AFTER
from biren_plugin.errors import InvalidRequest
from biren_plugin.files.cdi_file import load, render
from biren_plugin.files.cdi_owner import FIRST_READ_DEADLINE, CdiOwner
from biren_plugin.unix_sockets import UnixListener
from biren_plugin.wire.device_plugin import new_registration_server
from biren_plugin.wire.messages import Registration
from tests.support.bugs import raise_bug
from tests.support.cards import GPU, HALF, devices, listed
from tests.support.clocks import jump, settled
from tests.support.daemon_states import hold, new_state

GPUS = listed(GPU, *devices(GPU, 0, 1))
HALVES = listed(HALF, *devices(HALF, 5, 6))


@attrs.define
class Stage:
    """A node with a kubelet's directory and a place for a CDI file, for instances of the daemon."""

    path: Path
    cdi_file: Path
    folder: Board[KubeletFolder] = attrs.Factory(Board)
    state: DaemonState = attrs.Factory(new_state)

    def __attrs_post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Post the directory's content, as the daemon's watcher does."""
        self.folder.post(read_kubelet_folder(self.path))

    def owner(self, *, overwrite: bool = False) -> CdiOwner:
        """The owner of the CDI file, not started."""
        return CdiOwner(self.cdi_file, overwrite=overwrite)

    def instance(
        self, *beside: Callable[[], Awaitable[None]], cdi: CdiOwner | None = None
    ) -> Serving:
        """An instance, not started."""
        return Serving(Node(self.path, self.folder, self.state, cdi=cdi), beside)


@pytest.fixture
async def node(path: Path, tmp_path: Path) -> Stage:
    return Stage(path, tmp_path / "biren.yaml")


@pytest.mark.parametrize(
    ("left", "names"), [((GPUS,), ["card_0", "card_1"]), ((HALVES,), ["card_5", "card_6"])]
)
async def test_the_cdi_file_loses_the_cards_of_a_resource_that_is_gone(
    node: Stage, mock_clock: MockClock, left: tuple[DeviceList], names: list[str]
) -> None:
    owner = node.owner()

    def in_file() -> list[str]:
        spec = load(owner.path)
        return [device["name"] for device in spec["devices"]] if spec is not None else []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        hold(node.state, GPUS, HALVES)
        nursery.start_soon(node.instance(cdi=owner).run)
        await settled()
        assert in_file() == ["card_0", "card_1", "card_5", "card_6"]
        hold(node.state, *left)
        await settled()
        assert in_file() == names
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_read", [True, False])
async def test_the_lock_is_taken_once_the_cdi_file_was_read_or_is_given_up(
    node: Stage, mock_clock: MockClock, is_read: bool
) -> None:
    owner = node.owner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.instance(cdi=owner).run)
        await settled()
        roles: list[str] = [node.state.role]
        if is_read:
            nursery.start_soon(owner.run)
        else:
            await jump(mock_clock, FIRST_READ_DEADLINE)
        await settled()
        assert [*roles, node.state.role] == ["waiting", "serving"]
        nursery.cancel_scope.cancel()


async def test_the_cdi_file_of_a_node_without_cards_is_removed(
    node: Stage, mock_clock: MockClock
) -> None:
    owner = node.owner(overwrite=True)
    spec = spec_for([GPUS])
    assert spec is not None
    owner.path.write_text(render(spec, "yaml"))
    hold(node.state)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        nursery.start_soon(node.instance(cdi=owner).run)
        await settled()
        assert not owner.path.exists(), "an earlier daemon left it"
        nursery.cancel_scope.cancel()


async def test_an_instance_that_ended_leaves_the_cdi_file_to_the_next_one(
    node: Stage, mock_clock: MockClock
) -> None:
    owner = node.owner()
    hold(node.state, GPUS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        async with trio.open_nursery() as instance:
            instance.start_soon(node.instance(cdi=owner).run)
            await settled()
            assert owner.path.exists()
            instance.cancel_scope.cancel()
        owner.path.unlink()
        await jump(mock_clock, 60)
        await settled()
        assert not owner.path.exists(), "it was written again"
        nursery.cancel_scope.cancel()


async def test_a_standing_by_instance_names_an_idle_holder_and_serves_once_the_lock_is_free(
    node: Stage, autojump_clock: MockClock
) -> None:
    state = node.state
    hold(state, GPUS)
    beside = 0

    async def note() -> None:
        nonlocal beside
        beside += 1

    async with trio.open_nursery() as nursery:
        with await hold_folder(node.path, node.folder):
            nursery.start_soon(node.instance(note).run)
            await trio.sleep(3 * IDLE_AFTER)
            roles: list[str] = [state.role]
            [sentence] = state.unready()
            assert sentence.startswith(f"process {os.getpid()} ")
            assert "serves no GPU of this node" in sentence
            assert beside == 0
        await trio.sleep(5)
        assert [*roles, state.role] == ["standing by", "serving"]
        assert (state.hindrance, beside) == ("", 1)
        nursery.cancel_scope.cancel()


async def test_a_refused_resource_waits_ever_longer_until_there_is_another_kubelet(
    node: Stage, autojump_clock: MockClock
) -> None:
    hold(node.state, GPUS)
    kubelet = node.path / KUBELET_SOCKET
    tries: list[float] = []

    async def refuse(_registration: Registration) -> None:
        tries.append(trio.current_time())
        raise InvalidRequest("not this one")

    server = new_registration_server(refuse, on_bug=raise_bug)
    async with trio.open_nursery() as nursery:
        for number in (1, 2):
            kubelet.unlink(missing_ok=True)
            nursery.start_soon(trio.serve_listeners, server.handle, [UnixListener(kubelet)])
            node.look()
            if number == 1:
                nursery.start_soon(node.instance().run)
            began = trio.current_time()
            await trio.sleep(60)
            tried = [round(at - began, 1) for at in tries if at >= began]
            assert tried[0] < 1, "at once, though a wait of up to 15 s was under way"
            assert 3 < len(tried) < 20
        nursery.cancel_scope.cancel()
