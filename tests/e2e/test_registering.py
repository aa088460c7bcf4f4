"""Every resource is registered, listed and watched, whatever the kubelet does and when."""

import socket
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF, QUARTER, streams_ended
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess

MIXED = {0: 1, 1: 1, 2: 2, 3: 4}
LISTS = {
    GPU: ["card_0", "card_1"],
    HALF: ["card_2", "card_3"],
    QUARTER: ["card_4", "card_5", "card_6", "card_7"],
}


def wait_for_all(kubelet: KubeletProcess, since: int | None = None) -> None:
    for resource, ids in LISTS.items():
        kubelet.wait_for_list(resource, healthy=ids, unhealthy=[], since=since)


@pytest.mark.parametrize("dials", ["during", "after"])
def test_three_resources_are_registered_with_options_and_listed(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess, dials: str
) -> None:
    host.add_gpus(MIXED)
    with KubeletProcess(plugins, "--dials", dials) as kubelet:
        daemon.start()
        wait_for_all(kubelet)
        wanted = {"get_preferred_allocation_available": True, "pre_start_required": False}
        for resource in LISTS:
            assert kubelet.wait_for_event("registered", resource=resource)["options"] == wanted
        assert kubelet.state()["allocatable"] == {GPU: 2, HALF: 2, QUARTER: 4}
        daemon.wait_for_line("registered and watched", count=3)


def test_lists_have_the_numa_node_if_the_host_has_one(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 4: 1, 5: 1})
    (host.root / "sys/class/biren/card_2/device/numa_node").write_text("-1\n")
    daemon.start()
    devices = kubelet.wait_for_list(GPU, healthy=3)["devices"]
    assert {device["id"]: device["numa"] for device in devices} == {
        "card_0": [0],
        "card_1": [1],
        "card_2": [],
    }


@pytest.mark.parametrize("dials", ["during", "after"])
@pytest.mark.usefixtures("either_way")
def test_a_restarted_kubelet_soon_has_every_list_again(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess, dials: str
) -> None:
    host.add_gpus(MIXED)
    with KubeletProcess(plugins, "--dials", dials) as kubelet:
        daemon.start()
        wait_for_all(kubelet)
        kubelet.restart()
        wait_for_all(kubelet)


def test_the_kubelet_may_answer_slowly(
    host: SimulatedHost, plugins: Path, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 2})
    with KubeletProcess(plugins, "--hold") as kubelet:
        daemon.start()
        for resource in (GPU, HALF):
            kubelet.wait_for_event("register_held", resource=resource)
        kubelet.command("release")
        kubelet.wait_for_list(GPU, healthy=1)
        kubelet.wait_for_list(HALF, healthy=2)


@pytest.mark.usefixtures("either_way")
def test_a_deleted_socket_is_replaced_and_the_other_resources_stay(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus(MIXED)
    daemon.start()
    wait_for_all(kubelet)
    mark = kubelet.mark()
    (kubelet.folder / "birentech.com-gpu.sock").unlink()
    kubelet.wait_for_list(GPU, healthy=LISTS[GPU], since=mark)
    assert streams_ended(kubelet, GPU, mark)
    assert not streams_ended(kubelet, HALF, mark)
    assert not streams_ended(kubelet, QUARTER, mark)


def test_only_the_owner_can_use_the_sockets(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    path = kubelet.folder / "birentech.com-gpu.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as somebody:
        somebody.connect(str(path))
