"""The whole task tree on one node: subtrees are independent, and late parts are waited for."""

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from biren_plugin.daemon import run_daemon, run_until_signal
from biren_plugin.device_plugin.folder_lock import find_lock_holder
from biren_plugin.errors import FolderDead
from biren_plugin.files.cdi_file import load
from biren_plugin.unix_sockets import FileIdentity
from biren_plugin.wire.device_plugin import PluginClient
from biren_plugin.wire.messages import ListedDevice
from biren_plugin.wire.unix_grpc import Channel, with_channel
from tests.support.clocks import patience
from tests.support.node_in_process import GPU, HALF, QUARTER, NodeInProcess, wait_until
from tests.support.vfio_host import VFIO, VfioHost, physical

GPU_SOCKET = "birentech.com-gpu.sock"
HALF_SOCKET = "birentech.com-1-2-gpu.sock"


def sockets_of(node: NodeInProcess) -> list[str]:
    return sorted(path.name for path in node.plugins.glob("birentech*.sock"))


@contextlib.asynccontextmanager
async def watching(socket: Path) -> AsyncIterator[trio.MemoryReceiveChannel[list[ListedDevice]]]:
    """Open a separate stream, as a kubelet does, and yield its lists; raises when the stream breaks."""
    send, receive = trio.open_memory_channel[list[ListedDevice]](10)

    async def watch(channel: Channel) -> None:
        async with contextlib.aclosing(PluginClient(channel).lists()) as lists:
            async for devices in lists:
                await send.send(devices)

    async with trio.open_nursery() as nursery:
        stream = await trio.open_unix_socket(socket)
        nursery.start_soon(with_channel, stream, watch)
        with trio.fail_after(patience()):
            await receive.receive()
        yield receive
        nursery.cancel_scope.cancel()


async def test_each_resource_of_the_node_is_served(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1, 1: 2, 2: 4})
    async with node.running():
        await node.sees(node.truth())
        assert node.seen().keys() == {GPU, HALF, QUARTER}
    assert not sockets_of(node), "the end of the daemon removes them"


async def test_a_restarting_resource_does_not_affect_the_others_streams(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1, 1: 2})
    async with node.running():
        await node.sees(node.truth())
        async with watching(node.plugins / HALF_SOCKET) as lists:
            old = FileIdentity.of(node.plugins / GPU_SOCKET)
            (node.plugins / GPU_SOCKET).unlink()
            await wait_until(lambda: FileIdentity.of(node.plugins / GPU_SOCKET) not in (None, old))
            await node.sees(node.truth())
            node.host.pull_node("card_1")
            with trio.fail_after(patience()):
                assert [device.healthy for device in await lists.receive()] == [False, True]


async def test_a_subtree_starts_and_ends_with_its_resource(
    node: NodeInProcess, fast_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node.host.add_gpus({0: 1})
    async with node.running():
        await node.sees(node.truth())
        async with watching(node.plugins / GPU_SOCKET) as lists:
            node.host.add_gpus({1: 2})
            await node.sees(node.truth())
            assert sockets_of(node) == [HALF_SOCKET, GPU_SOCKET]
            with pytest.raises(trio.WouldBlock):
                lists.receive_nowait()
        node.host.split(1, 1)
        await node.sees(node.truth())
        await wait_until(lambda: sockets_of(node) == [GPU_SOCKET])
    assert f"{HALF}: the node has no such device any more" in caplog.text


async def test_a_hundred_re_splits_leave_nothing_behind(
    node: NodeInProcess, fast_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    fast_clock.rate = 50
    node.host.add_gpus({0: 1, 1: 1})

    async def split(parts: int, resource: str) -> None:
        names = node.host.split(1, parts)
        await wait_until(lambda: all(node.seen().get(resource, {}).get(name) for name in names))
        assert node.seen()[GPU]["card_0"], "the other card's entry is untouched"

    async def rest() -> None:
        await node.sees(node.truth())
        await wait_until(lambda: sockets_of(node) == [GPU_SOCKET])

    def holds() -> tuple[int, int]:
        tasks = trio.lowlevel.current_statistics().tasks_living
        return tasks, len(os.listdir("/proc/self/fd"))

    async with node.running():
        await rest()
        tasks, descriptors = holds()
        for _ in range(50):
            await split(4, QUARTER)
            await split(1, GPU)
        await rest()
        # Now and then a task more asks somebody something; what a split left behind would stay.
        await wait_until(lambda: holds()[0] <= tasks and holds()[1] <= descriptors)
    assert f"{GPU} restarts" not in caplog.text


@pytest.mark.parametrize("missing", ["driver", "cards", "folder", "kubelet"])
async def test_missing_parts_are_logged_once_and_waited_for(
    node: NodeInProcess, fast_clock: MockClock, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    class_folder = node.host.root / "sys/class/biren"
    if missing == "driver":
        class_folder.rmdir()
    if missing == "folder":
        node.plugins.rmdir()
    if missing not in ("driver", "cards"):
        node.host.add_gpus({0: 1})
    sentence = {
        "driver": "no /sys/class/biren: waiting for the driver",
        "cards": "no Biren card in /sys/class/biren: waiting",
        "folder": f"waiting for {node.plugins}: no such directory",
        "kubelet": f"waiting for the kubelet: no {node.plugins}/kubelet.sock",
    }[missing]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_daemon, node.settings)
        await trio.sleep(10)  # of the daemon's seconds: it looks once in each
        assert [message for message in caplog.messages if sentence in message]
        class_folder.mkdir(exist_ok=True)
        node.plugins.mkdir(exist_ok=True)
        if missing in ("driver", "cards"):
            node.host.add_gpus({0: 1})
        await node.start_kubelet(nursery)
        await node.sees({GPU: {"card_0": True}})
        nursery.cancel_scope.cancel()
    assert len([message for message in caplog.messages if sentence in message]) == 1


async def test_a_restarted_kubelet_sees_everything_again(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1, 1: 2})
    async with node.running() as nursery:
        await node.sees(node.truth())
        await node.start_kubelet(nursery)
        assert node.seen() == {}
        await node.sees(node.truth())


async def test_the_daemon_moves_over_to_a_recreated_directory(
    node: NodeInProcess, fast_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node.host.add_gpus({0: 1})
    async with node.running() as nursery:
        await node.sees(node.truth())
        node.stop_kubelet()
        node.make_folder_anew()
        await node.start_kubelet(nursery)
        await node.sees(node.truth())
    assert f"{node.plugins} was deleted or re-created" in caplog.text


async def test_a_recreated_directory_is_locked_again(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    """Otherwise a second daemon would serve beside the first."""

    def is_locked() -> bool:  # not by a try, which would hinder the daemon's own
        return find_lock_holder(node.plugins) is not None

    node.host.add_gpus({0: 1})
    async with node.running():
        await wait_until(is_locked)
        node.make_folder_anew()
        assert not is_locked()
        await wait_until(is_locked)


async def test_a_directory_deleted_under_its_mount_ends_the_process_with_the_reason(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1})
    held = os.open(node.plugins, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # As a bind mount does, this path leads to the folder even when that is deleted.
        mount = Path(f"/proc/self/fd/{held}")
        reason = pytest.RaisesExc(FolderDead, match="re-created elsewhere: .*restart the pod")
        with pytest.RaisesGroup(reason):
            async with trio.open_nursery() as nursery:
                settings = attrs.evolve(node.settings, device_plugin_dir=mount)
                nursery.start_soon(run_until_signal, settings)
                await wait_until(lambda: bool(sockets_of(node)))
                shutil.rmtree(node.plugins)
                node.plugins.mkdir()
                await trio.sleep(60)
    finally:
        os.close(held)


async def test_a_second_instance_stands_by_and_takes_over(
    node: NodeInProcess, fast_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node.host.add_gpus({0: 1})
    first = trio.CancelScope()

    async def run_first() -> None:
        with first:
            await run_daemon(node.settings)

    async with trio.open_nursery() as nursery:
        await node.start_kubelet(nursery)
        nursery.start_soon(run_first)
        await node.sees(node.truth())
        nursery.start_soon(run_daemon, node.settings)
        await wait_until(lambda: "another instance holds" in caplog.text)
        old = FileIdentity.of(node.plugins / GPU_SOCKET)
        first.cancel()
        await wait_until(lambda: FileIdentity.of(node.plugins / GPU_SOCKET) not in (None, old))
        await node.sees(node.truth())
        nursery.cancel_scope.cancel()
    assert caplog.text.count("standing by") == 1
    assert caplog.text.count("taking over") == 1


async def test_the_cdi_file_follows_the_node_and_outlives_the_daemon(
    node: NodeInProcess, fast_clock: MockClock, tmp_path: Path
) -> None:
    node.host.add_gpus({0: 1})
    file = tmp_path / "biren.yaml"

    def names() -> list[str]:
        spec = load(file)
        return [device["name"] for device in spec["devices"]] if spec is not None else []

    async with node.running(cdi_feature=True, cdi_dir=tmp_path):
        await node.sees(node.truth())
        assert names() == ["card_0"]
        node.host.add_gpus({1: 2})
        await node.sees(node.truth())
        assert names() == ["card_0", "card_1", "card_2"]
    assert names() == ["card_0", "card_1", "card_2"], "containers may start again meanwhile"


async def test_the_cdi_file_loses_the_cards_of_a_removed_resource(
    node: NodeInProcess, fast_clock: MockClock, tmp_path: Path
) -> None:
    node.host.add_gpus({0: 1, 1: 2})

    def names() -> list[str]:
        spec = load(tmp_path / "biren.yaml")
        return [device["name"] for device in spec["devices"]] if spec is not None else []

    async with node.running(cdi_feature=True, cdi_dir=tmp_path):
        await node.sees(node.truth())
        assert names() == ["card_0", "card_1", "card_2"]
        node.host.split(1, 1)
        await node.sees(node.truth())
        await wait_until(lambda: names() == node.cards())
        assert len(names()) == 2


async def test_without_cdi_no_file_is_written(
    node: NodeInProcess, fast_clock: MockClock, tmp_path: Path
) -> None:
    node.host.add_gpus({0: 1})
    async with node.running(overwrite_cdi_config=True, cdi_dir=tmp_path):
        await node.sees(node.truth())
    assert not list(tmp_path.iterdir())


async def test_a_kata_node_serves_its_groups_and_not_its_cards(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1})
    groups = VfioHost(node.host.root)
    groups.add_whole(0, 9)
    first, _ = groups.add_split(1, [20, 21])
    async with node.running(container_runtime="kata"):
        await node.sees(
            {GPU: {"/dev/vfio/9": True}, HALF: {"/dev/vfio/20": True, "/dev/vfio/21": True}}
        )
        groups.bind(first, "biren")
        groups.bind(physical(0), "biren")
        await node.sees(
            {GPU: {"/dev/vfio/9": False}, HALF: {"/dev/vfio/20": False, "/dev/vfio/21": True}}
        )
        groups.bind(first, VFIO)
        groups.bind(physical(0), VFIO)
        await node.sees(
            {GPU: {"/dev/vfio/9": True}, HALF: {"/dev/vfio/20": True, "/dev/vfio/21": True}}
        )


async def test_a_heartbeat_sends_every_list_again(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1})
    async with node.running(pulse=2):
        await node.sees(node.truth())
        async with watching(node.plugins / GPU_SOCKET) as lists:
            with trio.fail_after(patience()):
                for _ in range(2):
                    assert await lists.receive() == [ListedDevice("card_0", True, (0,))]


async def test_a_killed_daemons_socket_is_removed_at_the_start(
    node: NodeInProcess, fast_clock: MockClock
) -> None:
    node.host.add_gpus({0: 1})
    async with trio.open_nursery() as nursery:
        await node.start_kubelet(nursery)  # which empties its directory
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(node.plugins / HALF_SOCKET))
        nursery.start_soon(run_daemon, node.settings)
        await node.sees(node.truth())
        assert sockets_of(node) == [GPU_SOCKET]
        nursery.cancel_scope.cancel()
