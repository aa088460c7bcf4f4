"""The kubelet's lists follow the host while the daemon runs, in steps that the kubelet can handle."""

from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF, QUARTER, streams_ended
from tests.e2e.daemon import DaemonProcess, until
from tests.kubelet.client import KubeletProcess


def lists_of(kubelet: KubeletProcess, resource: str, since: int) -> list[dict[str, str]]:
    """The health of each id, in each list since that mark."""
    return [
        {device["id"]: device["health"] for device in event["devices"]}
        for event in kubelet.events[since:]
        if event["event"] == "list" and event["resource"] == resource
    ]


@pytest.mark.usefixtures("either_way")
def test_a_card_without_its_node_is_unhealthy_until_the_node_is_back(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    host.pull_node("card_1")
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line(
        "card_1 is Unhealthy: device node /dev/biren/card_1 is missing; see .*dmesg"
    )
    host.put_node_back("card_1")
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    daemon.wait_for_line("card_1 is Healthy again")
    first, *rest = lists_of(kubelet, GPU, 0)
    assert rest == [{"card_0": "Healthy", "card_1": "Unhealthy"}, first], "each change once"


def test_a_regular_file_in_place_of_a_node_is_not_a_device(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    node = host.root / "dev/biren/card_0"
    file = node.with_name("made by mistake")
    file.touch()
    file.replace(node)
    kubelet.wait_for_list(GPU, healthy=[], unhealthy=["card_0"])
    daemon.wait_for_line("card_0 is Unhealthy: /dev/biren/card_0 is not a character device")
    node.unlink()
    host.put_node_back("card_0")
    kubelet.wait_for_list(GPU, healthy=["card_0"])


def test_the_whole_directory_of_nodes_may_vanish_and_return(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    nodes = host.root / "dev/biren"
    nodes.rename(host.root / "gone")
    kubelet.wait_for_list(GPU, healthy=0, unhealthy=2)
    (host.root / "gone").rename(nodes)
    kubelet.wait_for_list(GPU, healthy=2)
    # In a folder made anew, events must be seen as well.
    host.pull_node("card_0")
    kubelet.wait_for_list(GPU, healthy=["card_1"], unhealthy=["card_0"])


def test_a_gpu_that_fell_off_the_bus_stays_listed_until_it_returns(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    mark = kubelet.mark()
    host.remove_gpu(1)
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("card_1 is Unhealthy: fell off the bus: GPU 1 is gone .*lspci")
    host.add_gpus({1: 1})
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    assert all(len(each) == 2 for each in lists_of(kubelet, GPU, mark)), "it never left the list"
    assert not streams_ended(kubelet, GPU, mark)


def test_a_new_gpu_is_listed(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    mark = kubelet.mark()
    host.add_gpus({1: 1, 2: 2})
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    kubelet.wait_for_list(HALF, healthy=["card_2", "card_3"])
    assert not streams_ended(kubelet, GPU, mark)


def test_re_splits_move_gpus_between_resources(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1, 2: 2})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    kubelet.wait_for_list(HALF, healthy=["card_2", "card_3"])
    mark = kubelet.mark()
    quarters = host.split(1, 4)
    wholes = host.split(2, 1)
    # What appears is listed and what is left of a resource stays on its stream; ...
    kubelet.wait_for_list(QUARTER, healthy=quarters)
    kubelet.wait_for_list(GPU, healthy=["card_0", *wholes], unhealthy=[], since=mark)
    assert lists_of(kubelet, GPU, mark)[0] == {"card_0": "Healthy", "card_1": "Unhealthy"}
    assert not streams_ended(kubelet, GPU, mark)
    # ... a resource without a card is emptied in two steps, and then ends.
    kubelet.wait_for_event("stream_ended", resource=HALF, since=mark)
    assert lists_of(kubelet, HALF, mark) == [
        {"card_2": "Unhealthy", "card_3": "Unhealthy"},
        {},
    ]
    daemon.wait_for_line(f"{HALF}: the node has no such device any more")
    until(lambda: not (kubelet.folder / "birentech.com-1-2-gpu.sock").exists())


def test_an_unsettled_split_is_not_offered(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 4})
    host.remove_card("card_4")  # three of four: no split that there is
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=["card_0"])
    daemon.wait_for_line("GPU 1 .*has not settled, 3 cards are there")
    host.remove_card("card_3")
    host.remove_card("card_2")
    host.remove_card("card_1")
    names = host.split(1, 2)
    kubelet.wait_for_list(HALF, healthy=names)
    assert not kubelet.latest(QUARTER)


def test_the_daemon_follows_the_host_without_a_kubelet(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    kubelet.stop()
    host.pull_node("card_0")
    host.add_gpus({2: 2})
    daemon.wait_for_line(f"{HALF}: found")
    kubelet.start()
    kubelet.wait_for_list(GPU, healthy=["card_1"], unhealthy=["card_0"])
    kubelet.wait_for_list(HALF, healthy=["card_2", "card_3"])


def test_a_pulse_sends_the_list_again_after_a_full_scan(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--pulse", "1")
    first = kubelet.wait_for_list(GPU, healthy=1)["devices"]
    again = kubelet.wait_for_list(GPU, healthy=1, since=kubelet.mark())["devices"]
    assert again == first
    # What is otherwise read once for each card is read anew with the beat.
    attribute: Path = host.root / "sys/class/biren/card_0/device/numa_node"
    attribute.write_text("3\n")
    kubelet.wait_for(
        lambda event: event["event"] == "list" and event["devices"][0]["numa"] == [3],
        what="a list with the new NUMA node",
    )
