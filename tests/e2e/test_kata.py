"""A kata node: VFIO groups are listed, allocated, judged and followed like cards."""

import json
from pathlib import Path

import jsonschema
import pytest

from tests.e2e.conftest import GPU, HALF, QUARTER, streams_ended, strings_of
from tests.e2e.daemon import DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess
from tests.support.recorded import HOSTS, copy_host
from tests.support.vfio_host import VFIO, VfioHost, physical

KATA = ("--container-runtime=kata", "--recover-after=0.5")
SCHEMA = Path(__file__).parents[2] / "schema/groups.schema.json"


@pytest.fixture
def groups(folder: Path) -> VfioHost:
    """A kata node without a GPU yet."""
    return VfioHost(folder / "host")


def ids(*numbers: int) -> list[str]:
    return [f"/dev/vfio/{number}" for number in numbers]


def test_a_recorded_kata_host_allocates_its_usable_groups(
    folder: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    copy_host("sriov_mixed", folder / "host")
    daemon.start(*KATA)
    kubelet.wait_for_list(GPU, healthy=ids(17), unhealthy=ids(18))
    kubelet.wait_for_list(HALF, healthy=ids(40), unhealthy=[])
    kubelet.wait_for_list(QUARTER, healthy=ids(50, 51), unhealthy=ids(52, 53))
    for resource, count in ((GPU, 1), (HALF, 1), (QUARTER, 2)):
        admitted = kubelet.admit(resource, count)
        assert admitted["ok"], admitted
        response = admitted["response"]
        assert [node["host_path"] for node in response["devices"]] == admitted["ids"]
        assert {node["permissions"] for node in response["devices"]} == {"rw"}
        assert response["envs"] == {"BR_PHY_CARDS": ",".join(admitted["ids"])}
        assert not response["mounts"]
        assert str(folder) not in strings_of(response)
    refused = kubelet.allocate(QUARTER, ids(52))
    assert "lspci -nnk -s 0000:04:00.3" in refused["details"]
    daemon.wait_for_line(r"WARNING GPU 0000:05:00.0 is split into 3: there is no resource")
    daemon.wait_for_line(r"WARNING PCI function 0000:06:00.0 has no virtual functions")
    daemon.wait_for_line(r"WARNING PCI function 0000:07:00.0 has no IOMMU group")
    assert not daemon.matching("brsmi|/sys/class/biren|management library")


@pytest.mark.parametrize(("parts", "resource"), [(1, GPU), (2, HALF), (4, QUARTER)])
def test_virtual_functions_are_listed_with_their_numa_node(
    groups: VfioHost, kubelet: KubeletProcess, daemon: DaemonProcess, parts: int, resource: str
) -> None:
    groups.add_split(5, range(20, 20 + parts))
    daemon.start(*KATA)
    devices = kubelet.wait_for_list(resource, healthy=parts, unhealthy=0)["devices"]
    assert [device["id"] for device in devices] == ids(*range(20, 20 + parts))
    assert [device["numa"] for device in devices] == [[1]] * parts


def unbound(group: int, address: str) -> str:
    """The line about a function that is not bound to vfio-pci."""
    return (
        rf"/dev/vfio/{group} is Unhealthy: .*function {address} \(biren\) .*lspci -nnk -s {address}"
    )


def test_a_rebound_function_is_unhealthy_with_the_reason_until_it_is_back(
    groups: VfioHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    groups.add_whole(0, 9)
    _, second = groups.add_split(1, [20, 21])
    daemon.start(*KATA)
    kubelet.wait_for_list(HALF, healthy=2)
    kubelet.wait_for_list(GPU, healthy=1)
    mark = kubelet.mark()
    # One after the other: faults of one scan that are alike are one line, with one of the addresses.
    groups.bind(second, "biren")
    kubelet.wait_for_list(HALF, healthy=ids(20), unhealthy=ids(21))
    daemon.wait_for_line(unbound(21, second))
    groups.bind(physical(0), "biren")
    kubelet.wait_for_list(GPU, healthy=[], unhealthy=ids(9))
    daemon.wait_for_line(unbound(9, physical(0)))
    groups.bind(second, VFIO)
    kubelet.wait_for_list(HALF, healthy=2, unhealthy=0)
    daemon.wait_for_line("/dev/vfio/21 is Healthy again")
    groups.bind(physical(0), VFIO)
    kubelet.wait_for_list(GPU, healthy=1, unhealthy=0)
    assert not streams_ended(kubelet, HALF, mark)


def test_a_silent_function_and_a_pulled_node_affect_their_own_group(
    groups: VfioHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    functions = groups.add_split(0, [20, 21, 22, 23])
    daemon.start(*KATA)
    kubelet.wait_for_list(QUARTER, healthy=4)
    groups.silence(functions[0])
    groups.node(23).unlink()
    kubelet.wait_for_list(QUARTER, healthy=ids(21, 22), unhealthy=ids(20, 23))
    daemon.wait_for_line(f"/dev/vfio/20 is Unhealthy: its PCI function {functions[0]} answers 0xFF")
    daemon.wait_for_line(
        "/dev/vfio/23 is Unhealthy: device node /dev/vfio/23 is missing; see .*lspci"
    )
    groups.answer(functions[0])
    groups.node(23).symlink_to("/dev/null")
    kubelet.wait_for_list(QUARTER, healthy=4, unhealthy=0)


def test_groups_appear_and_vanish_on_a_live_node(
    groups: VfioHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    daemon.start(*KATA)
    daemon.wait_for_line("WARNING no Biren function for VFIO in /sys/bus/pci/devices.*waiting")
    groups.add_whole(0, 9)
    groups.add_split(1, [20, 21])
    kubelet.wait_for_list(GPU, healthy=ids(9))
    kubelet.wait_for_list(HALF, healthy=ids(20, 21))
    groups.remove(physical(0))
    kubelet.wait_for_list(GPU, healthy=[], unhealthy=ids(9))
    daemon.wait_for_line(f"its GPU {physical(0)} is gone from sysfs")
    groups.add_whole(0, 9)
    kubelet.wait_for_list(GPU, healthy=ids(9), unhealthy=[])


def test_a_re_split_gpu_changes_its_resource(
    groups: VfioHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    groups.add_split(1, [20, 21])
    daemon.start(*KATA)
    kubelet.wait_for_list(HALF, healthy=2)
    groups.unsplit(1)
    kubelet.wait_for_list(HALF, healthy=[], unhealthy=ids(20, 21))
    groups.remove(physical(1))
    groups.add_split(1, [30, 31, 32, 33])
    kubelet.wait_for_list(QUARTER, healthy=ids(30, 31, 32, 33))
    kubelet.wait_for_event("stream_ended", resource=HALF)
    daemon.wait_for_line(f"replaced by a new split of GPU {physical(1)}")


def test_the_document_of_groups_matches_its_schema() -> None:
    result = run_command(
        "devices", "--container-runtime=kata", "--json", f"--host-root={HOSTS / 'sriov_mixed'}"
    )
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    by_group = {each["group"]: each for each in document["groups"]}
    assert by_group[40] == {
        "group": 40,
        "device_node": "/dev/vfio/40",
        "resource": HALF,
        "gpu_address": "0000:03:00.0",
        "instances": 2,
        "functions": ["0000:03:00.1", "0000:03:00.2"],
        "numa_node": 0,
        "healthy": True,
        "reasons": [],
        "excluded_by": None,
        "dra_device": "vfio-0000-03-00-1",
    }
    assert by_group[52]["healthy"] is False
    assert by_group[60]["resource"] is None
    assert len(document["left_out"]) == 3


def test_the_table_of_groups_has_a_row_for_each_and_names_unused_functions(
    groups: VfioHost,
) -> None:
    root = f"--host-root={groups.root}"
    (line,) = run_command("devices", "--container-runtime", "kata", root).stdout.splitlines()
    assert line.startswith("No Biren function for VFIO on this host")
    groups.add_whole(0, 9)
    groups.add_split(1, [])
    headings, row, sentence = run_command(
        "devices", "--container-runtime", "kata", root
    ).stdout.splitlines()
    assert headings.split() == ["GROUP", "RESOURCE", "GPU", "FUNCTIONS", "NUMA", "HEALTH"]
    assert row.split() == ["/dev/vfio/9", GPU, physical(0), physical(0), "0", "Healthy"]
    assert f"{physical(1)} has no virtual functions" in sentence
