"""No task of the daemon makes a call on the event loop that waits while a disk, a driver or a name server hangs."""

import contextlib
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.daemon import run_daemon
from biren_plugin.unix_sockets import FileIdentity
from tests.support.api_server import stand_in_api_server
from tests.support.dra_node import DraNode, in_thread
from tests.support.hami_books import Wish
from tests.support.hami_node import HamiNode, until
from tests.support.loop_calls import loop_calls
from tests.support.node_in_process import GPU, NodeInProcess, wait_until


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def brisk_clock() -> MockClock:
    """Four times as fast: two daemons whose every call is noted may take half a second for a start."""
    return MockClock(rate=4)


async def test_a_daemon_that_serves_restarts_hands_over_and_stops_makes_no_call_that_waits(
    node: NodeInProcess, brisk_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1, 1: 2})
    folder = node.plugins.parent
    settings = attrs.evolve(
        node.settings,
        cdi_feature=True,
        cdi_dir=folder / "cdi",
        nfd_features_dir=folder,
        metrics_address=f"localhost:{free_port()}",
        monitoring_resource=True,
    )
    own = node.plugins / "birentech.com-gpu.sock"
    first = trio.CancelScope()

    async def live(life: trio.CancelScope) -> None:
        with life:
            await run_daemon(settings)

    async def served_anew(change: Callable[[], object]) -> None:
        before = FileIdentity.of(own)
        change()
        await wait_until(lambda: FileIdentity.of(own) not in (None, before))
        await wait_until(lambda: GPU in node.seen())

    with loop_calls() as found:
        async with trio.open_nursery() as nursery:
            await node.start_kubelet(nursery)
            nursery.start_soon(live, first)
            await wait_until(lambda: GPU in node.seen())
            nursery.start_soon(run_daemon, settings)  # stands by
            await node.kubelet.admit(GPU, 1)
            await node.start_kubelet(nursery)
            await wait_until(lambda: GPU in node.seen())
            await served_anew(own.unlink)
            await served_anew(first.cancel)
            node.stop_kubelet()
            node.make_folder_anew()
            await node.start_kubelet(nursery)
            await wait_until(lambda: GPU in node.seen())
            await trio.sleep(3)  # of the daemon's seconds: each loop has its turn
            nursery.cancel_scope.cancel()
    assert not found, "\n".join(sorted(found))


async def test_a_driver_that_registers_prepares_a_claim_and_stops_makes_no_call_that_waits() -> (
    None
):
    with (
        tempfile.TemporaryDirectory(prefix="br") as folder,
        stand_in_api_server() as server,
    ):
        node = DraNode(Path(folder), server)
        with loop_calls() as found:
            async with node.running():
                claim = node.allocate("team-1", *sorted(node.devices())[:1])
                await in_thread(lambda: node.kubelet.prepare("team/pod", claim))
                assert node.files()
        assert not found, "\n".join(sorted(found))


async def test_a_node_under_hami_that_reports_allocates_and_stops_makes_no_call_that_waits() -> (
    None
):
    with (
        tempfile.TemporaryDirectory(prefix="br") as folder,
        stand_in_api_server() as server,
    ):
        node = HamiNode(server, Path(folder))
        with loop_calls() as found:
            async with node.registered():
                await node.run_pod("p1", Wish((2,)))
                await until(lambda: node.scheduler.lock is None)
        assert not found, "\n".join(sorted(found))
