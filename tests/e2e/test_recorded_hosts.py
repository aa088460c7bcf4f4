"""Recorded hosts, sound and broken, are served as far as possible."""

import shutil
from pathlib import Path

from tests.e2e.conftest import GPU, HALF, QUARTER, strings_of
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess
from tests.support.recorded import HOSTS, copy_host


def names(*numbers: int) -> list[str]:
    return [f"card_{number}" for number in numbers]


def test_eight_whole_gpus_on_two_numa_nodes(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    copy_host("eight_whole", folder / "host")
    daemon.start()
    devices = kubelet.wait_for_list(GPU, healthy=names(*range(8)), unhealthy=[])["devices"]
    assert [device["numa"] for device in devices] == [[0]] * 4 + [[1]] * 4
    assert kubelet.admit(GPU, 8)["response"]["envs"] == {"BR_PHY_CARDS": ",".join(names(*range(8)))}


def test_mixed_node_gives_each_resource_its_cards(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    copy_host("mixed", folder / "host")
    daemon.start("--mount-host-path", "--mount-dri-device")
    kubelet.wait_for_list(GPU, healthy=names(0, 1, 10))
    kubelet.wait_for_list(HALF, healthy=names(2, 3, 4, 5))
    kubelet.wait_for_list(QUARTER, healthy=names(6, 7, 8, 9))
    (response,) = kubelet.allocate(QUARTER, ["card_9"])["responses"]
    nodes = [node["host_path"] for node in response["devices"]]
    assert nodes == ["/dev/biren/card_9", "/dev/biren-m", "/dev/dri/renderD129"]
    assert len(response["mounts"]) == 5
    assert str(folder) not in strings_of(response)


def test_unsettled_split_holds_up_no_other_gpu(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    copy_host("unsettled", folder / "host")
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=[])
    kubelet.wait_for_list(HALF, healthy=["card_5", "card_6"], unhealthy=[])
    daemon.wait_for_line("GPU 1 .*has not settled, 3 cards are there")
    assert not kubelet.latest(QUARTER)


def test_node_without_a_driver_is_served_once_it_has_one(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host = copy_host("empty", folder / "host")
    daemon.start()
    daemon.wait_for_line("no /sys/class/biren: waiting for the driver")
    shutil.copytree(HOSTS / "eight_whole", host, symlinks=True, dirs_exist_ok=True)
    kubelet.wait_for_list(GPU, healthy=8)


def test_broken_attributes_cost_no_other_card_its_place(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    copy_host("broken", folder / "host")
    daemon.start()
    # What is not known gives no verdict; without a physical_id it is not known what the card is.
    kubelet.wait_for_list(GPU, healthy=names(3, 4, 10), unhealthy=names(0, 9))
    for number in (1, 2, 6, 8):
        assert (
            len(daemon.matching(f"card_{number}: physical_id is missing, empty or unreadable")) == 1
        )
    assert len(daemon.matching("card_7: physical_id .*99999999999999999999")) == 1
    assert kubelet.allocate(GPU, ["card_10"])["ok"]
