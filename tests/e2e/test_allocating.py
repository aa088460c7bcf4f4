"""A pod gets what its container needs for its cards, or a refusal with advice."""

import shutil

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF, strings_of
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import Event, KubeletProcess

CONTROL_NODE = "/dev/biren-m"
TREE = "/usr/local/birensupa/driver"
DRIVER = f"{TREE}/biren-smi"


def nodes_of(response: Event) -> list[str]:
    """The device nodes of one container's response, which are all `rw` and at the same path."""
    for node in response["devices"]:
        assert node["permissions"] == "rw"
        assert node["container_path"] == node["host_path"]
    return [node["host_path"] for node in response["devices"]]


def only_response(answer: Event) -> Event:
    assert answer["ok"], answer
    (response,) = answer["responses"]
    assert isinstance(response, dict)
    return response


def test_a_pod_gets_its_cards_nodes_and_environment(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus(dict.fromkeys(range(4), 1))
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=4)
    admitted = kubelet.admit(GPU, 2)
    assert admitted["ok"], admitted
    assert admitted["ids"] == ["card_0", "card_1"], "the preferred ones"
    response = admitted["response"]
    assert nodes_of(response) == ["/dev/biren/card_0", "/dev/biren/card_1", CONTROL_NODE]
    assert response["envs"] == {"BR_PHY_CARDS": "card_0,card_1"}
    assert not response["mounts"]
    assert not response["cdi_devices"]
    assert str(host.root) not in strings_of(response)
    daemon.wait_for_line(f"{GPU}: allocated card_[01], card_[01]$")


def test_a_pod_keeps_its_init_containers_cards(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus(dict.fromkeys(range(4), 1))
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=4)
    assert kubelet.admit(GPU, 2, must_include=["card_3"])["ids"] == ["card_0", "card_3"]


def test_pods_get_close_cards_and_groups_stay_whole(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus(dict.fromkeys(range(8), 1))
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=8)
    assert kubelet.admit(GPU, 1)["ids"] == ["card_0"]
    assert kubelet.admit(GPU, 4)["ids"] == ["card_4", "card_5", "card_6", "card_7"]
    assert kubelet.admit(GPU, 2)["ids"] == ["card_1", "card_2"]


def test_instances_are_packed_unless_placement_is_spread(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus(dict.fromkeys(range(2), 2))
    daemon.start("--placement=spread")
    kubelet.wait_for_list(HALF, healthy=4)
    assert kubelet.admit(HALF, 2)["ids"] == ["card_0", "card_2"]
    daemon.end()
    daemon.start()
    kubelet.wait_for_list(HALF, healthy=4)
    kubelet.command("free", resource=HALF, ids=["card_0", "card_2"])
    assert kubelet.admit(HALF, 2)["ids"] == ["card_0", "card_1"]


def test_each_container_is_answered_in_the_order_of_the_request(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus(dict.fromkeys(range(12), 1))
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=12)
    answer = kubelet.allocate(GPU, ["card_7"], ["card_10", "card_2"], ["card_0"])
    assert answer["ok"], answer
    assert [response["envs"] for response in answer["responses"]] == [
        {"BR_PHY_CARDS": "card_7"},
        {"BR_PHY_CARDS": "card_2,card_10"},
        {"BR_PHY_CARDS": "card_0"},
    ]
    assert [nodes_of(response) for response in answer["responses"]] == [
        ["/dev/biren/card_7", CONTROL_NODE],
        ["/dev/biren/card_2", "/dev/biren/card_10", CONTROL_NODE],
        ["/dev/biren/card_0", CONTROL_NODE],
    ]


def test_with_an_older_driver_no_control_node_is_added(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 2})
    (host.root / "dev/biren-m").unlink()
    daemon.start()
    kubelet.wait_for_list(HALF, healthy=2)
    response = only_response(kubelet.allocate(HALF, ["card_1"]))
    assert nodes_of(response) == ["/dev/biren/card_1"]


def add_render_node(host: SimulatedHost, name: str, driver: str) -> None:
    device = host.root / "sys/devices/platform" / driver
    node = device / "drm" / name
    node.mkdir(parents=True)
    (node / "device").symlink_to("../..")
    driver_folder = host.root / "sys/bus/platform/drivers" / driver
    driver_folder.mkdir(parents=True)
    (device / "driver").symlink_to(f"../../../bus/platform/drivers/{driver}")
    drm_class = host.root / "sys/class/drm"
    drm_class.mkdir(parents=True, exist_ok=True)
    (drm_class / name).symlink_to(f"../../devices/platform/{driver}/drm/{name}")
    (host.root / "dev/dri").mkdir(exist_ok=True)
    (host.root / "dev/dri" / name).symlink_to("/dev/null")


def test_vgems_render_node_is_added_if_requested(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    add_render_node(host, "renderD128", "ast")
    add_render_node(host, "renderD129", "vgem")
    daemon.start("--mount-dri-device")
    kubelet.wait_for_list(GPU, healthy=1)
    response = only_response(kubelet.allocate(GPU, ["card_0"]))
    assert nodes_of(response) == ["/dev/biren/card_0", CONTROL_NODE, "/dev/dri/renderD129"]


def test_the_render_node_is_not_added_unless_requested(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    add_render_node(host, "renderD128", "vgem")
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=1)
    response = only_response(kubelet.allocate(GPU, ["card_0"]))
    assert nodes_of(response) == ["/dev/biren/card_0", CONTROL_NODE]


def test_a_missing_render_node_is_logged_and_left_out(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    add_render_node(host, "renderD128", "ast")
    daemon.start("--mount-dri-device")
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line("WARNING .*vgem.*modprobe vgem")
    response = only_response(kubelet.allocate(GPU, ["card_0"]))
    assert nodes_of(response) == ["/dev/biren/card_0", CONTROL_NODE]


def test_driver_files_are_mounted_from_their_real_paths(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--mount-host-path")
    kubelet.wait_for_list(GPU, healthy=1)
    response = only_response(kubelet.allocate(GPU, ["card_0"]))
    library = f"{DRIVER}/lib/libbiren-ml.so.1.12.0"
    assert {mount["container_path"]: mount["host_path"] for mount in response["mounts"]} == {
        "/opt/birentech/lib/libbiren-ml.so": library,
        "/opt/birentech/lib/libbiren-ml.so.1": library,
        "/opt/birentech/lib/libbiren-ml.so.1.12.0": library,
        "/opt/birentech/bin/brsmi": f"{DRIVER}/bin/brsmi",
        TREE: TREE,
    }
    assert all(mount["read_only"] for mount in response["mounts"])
    assert str(host.root) not in strings_of(response)


def test_missing_driver_files_are_logged_and_left_out(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    (host.root / "usr/lib/libbiren-ml.so").unlink()
    shutil.rmtree(host.root / DRIVER.lstrip("/") / "bin")  # brsmi is a link to nowhere now
    daemon.start("--mount-host-path")
    kubelet.wait_for_list(GPU, healthy=1)
    response = only_response(kubelet.allocate(GPU, ["card_0"]))
    assert [mount["container_path"] for mount in response["mounts"]] == [
        "/opt/birentech/lib/libbiren-ml.so.1",
        "/opt/birentech/lib/libbiren-ml.so.1.12.0",
        TREE,
    ]
    for absent in (r"/usr/lib/libbiren-ml\.so:", "/usr/bin/brsmi:"):
        assert len(daemon.matching(f"WARNING .*{absent}")) == 1


def test_an_impossible_request_is_refused_as_invalid(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1, 2: 2})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    kubelet.wait_for_list(HALF, healthy=2)
    refusals: list[tuple[list[list[str]], str]] = [
        ([["card_9"]], "card_9 is not a device of this node; delete the pod"),
        ([["card_0"], ["/dev/vfio/9"]], "/dev/vfio/9 is not a device of this node"),
        ([["card_0", "card_0"]], "card_0 is asked for twice"),
        ([["card_1"], ["card_1"]], "card_1 is asked for twice"),
        ([["card_2"]], f"card_2 is a {HALF}, not a {GPU}; delete the pod"),
    ]
    for requests, sentence in refusals:
        answer = kubelet.allocate(GPU, *requests)
        assert answer["code"] == "INVALID_ARGUMENT"
        assert sentence in answer["details"]
        daemon.wait_for_line(f"{GPU}: refused an allocation: {sentence}")
    assert kubelet.allocate(GPU, ["card_0"], ["card_1"])["ok"], "refusals leave nothing behind"


def test_an_unhealthy_card_is_refused_with_the_reason(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    host.pull_node("card_1")
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    answer = kubelet.allocate(GPU, ["card_0", "card_1"])
    assert answer["code"] == "FAILED_PRECONDITION"
    assert "card_1 is Unhealthy: device node /dev/biren/card_1 is missing" in answer["details"]
    assert "delete the pod" in answer["details"]
    assert str(host.root) not in answer["details"]
    host.put_node_back("card_1")
    kubelet.wait_for_list(GPU, healthy=2)
    assert kubelet.allocate(GPU, ["card_0", "card_1"])["ok"]
