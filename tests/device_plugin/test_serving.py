"""The serving instance runs a subtree for each resource, and removes lost resources from the CDI file."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.model import DeviceList
from biren_plugin.device_plugin.kubelet_folder import KubeletFolder, read_kubelet_folder
from biren_plugin.device_plugin.node import Node
from biren_plugin.device_plugin.serving import Serving
from biren_plugin.files.cdi_file import load
from biren_plugin.files.cdi_owner import FIRST_READ_DEADLINE, CdiOwner
from tests.support.cards import GPU, HALF, devices, listed
from tests.support.clocks import jump, settled
from tests.support.daemon_states import hold, new_state

GPUS = listed(GPU, *devices(GPU, 0, 1))
HALVES = listed(HALF, *devices(HALF, 5, 6))


@pytest.fixture
def path() -> Iterator[Path]:
    # A Unix socket's path has at most 107 bytes: pytest's tmp_path may be too long.
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("left", "names"), [((GPUS,), ["card_0", "card_1"]), ((HALVES,), ["card_5", "card_6"])]
)
async def test_the_cdi_file_loses_the_cards_of_a_resource_that_is_gone(
    path: Path, tmp_path: Path, mock_clock: MockClock, left: tuple[DeviceList], names: list[str]
) -> None:
    folder = Board[KubeletFolder]()
    folder.post(read_kubelet_folder(path))
    state = new_state()
    owner = CdiOwner(tmp_path / "biren.yaml", overwrite=False)

    def in_file() -> list[str]:
        spec = load(owner.path)
        return [device["name"] for device in spec["devices"]] if spec is not None else []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        hold(state, GPUS, HALVES)
        nursery.start_soon(Serving(Node(path, folder, state, cdi=owner)).run)
        await settled()
        assert in_file() == ["card_0", "card_1", "card_5", "card_6"]
        hold(state, *left)
        await settled()
        assert in_file() == names
        nursery.cancel_scope.cancel()


async def test_the_lock_is_taken_once_the_cdi_file_was_read_or_is_given_up(
    path: Path, tmp_path: Path, mock_clock: MockClock
) -> None:
    folder = Board[KubeletFolder]()
    folder.post(read_kubelet_folder(path))
    for is_read in (True, False):
        state = new_state()
        owner = CdiOwner(tmp_path / "biren.yaml", overwrite=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Serving(Node(path, folder, state, cdi=owner)).run)
            await settled()
            roles: list[str] = [state.role]
            if is_read:
                nursery.start_soon(owner.run)
            else:
                await jump(mock_clock, FIRST_READ_DEADLINE)
            await settled()
            roles.append(state.role)
            assert roles == ["waiting", "serving"]
            nursery.cancel_scope.cancel()
