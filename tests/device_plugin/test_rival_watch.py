"""The state of a registration while another plugin's socket is in the directory."""

import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.core.observed import KubeletView
from biren_plugin.core.rivals import Sent
from biren_plugin.device_plugin.folder import KubeletFolder, read_kubelet_folder
from biren_plugin.device_plugin.node import Node, ResourceMemory
from biren_plugin.device_plugin.rival_watch import watch_rivals
from biren_plugin.errors import RegistrationLost
from tests.support.cards import GPU, devices, listed
from tests.support.daemon_states import new_state


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="br") as made:
        yield Path(made)


async def test_a_possible_rival_suspends_the_registration_until_the_kubelet_answers_or_it_has_gone(
    path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state = new_state(listed(GPU, *devices(GPU, 0)))
    node = Node(path, Board[KubeletFolder](), state)
    memory, sent = ResourceMemory(), Board[Sent]()
    memory.registered.post(True)
    sent.post(Sent(listed(GPU, *devices(GPU, 0)), trio.current_time()))
    state.kubelet_view.post(KubeletView(trio.current_time()))

    async def expect_the_end() -> None:
        with pytest.raises(RegistrationLost, match="no process serves vendor"):
            await watch_rivals(GPU, node, memory, sent)

    with socket.socket(socket.AF_UNIX) as vendor:
        vendor.bind(str(path / "vendor.sock"))
        vendor.listen(100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_the_end)
            await wait_all_tasks_blocked()
            node.folder.post(read_kubelet_folder(path))
            await trio.sleep(5)
            assert [memory.registered.latest] == [False]
            assert state.rivals[GPU].sockets == ("vendor.sock",)
            now = trio.current_time()
            state.kubelet_view.post(KubeletView(now, {}, {GPU: frozenset({"card_0"})}))
            await trio.sleep(5)
            assert [memory.registered.latest] == [True]
            assert not state.rivals
            state.kubelet_view.post(KubeletView(trio.current_time()))
            await trio.sleep(5)
            assert [memory.registered.latest] == [False]
            vendor.close()
    assert not state.rivals
    assert caplog.text.count("may have taken it") == 2
    assert caplog.text.count("no other plugin has taken it") == 1
