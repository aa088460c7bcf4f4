"""On a kata node the devices are VFIO groups, and a claim's containers get the groups' nodes."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from tests.support.api_server import stand_in_api_server
from tests.support.dra_node import DraNode, in_thread
from tests.support.vfio_host import VfioHost


@pytest.fixture
async def node() -> AsyncIterator[tuple[DraNode, VfioHost]]:
    """Two whole GPUs in groups 7 and 8, a third that is split into groups 9 and 10."""
    with tempfile.TemporaryDirectory(prefix="br") as folder, stand_in_api_server() as server:
        (Path(folder) / "node").mkdir()
        node = DraNode(Path(folder) / "node", server)
        host = VfioHost(Path(folder) / "kata")
        host.add_whole(0, 7)
        host.add_whole(1, 8)
        host.add_split(2, [9, 10])
        node.settings = attrs.evolve(
            node.settings, host_root=host.root, container_runtime="kata", health_interval=0.1
        )
        async with node.running():
            yield node, host


async def test_groups_are_devices_of_their_own_types(node: tuple[DraNode, VfioHost]) -> None:
    devices = node[0].devices()
    types = {name: each["attributes"]["type"]["string"] for name, each in devices.items()}
    assert types == {
        "vfio-0000-01-00-0": "vfio-gpu",
        "vfio-0000-02-00-0": "vfio-gpu",
        "vfio-0000-03-00-1": "vfio-1-2-gpu",
        "vfio-0000-03-00-2": "vfio-1-2-gpu",
    }
    attributes = devices["vfio-0000-01-00-0"]["attributes"]
    assert attributes["resource.kubernetes.io/pciBusID"] == {"string": "0000:01:00.0"}
    assert attributes["resource.kubernetes.io/pcieRoot"] == {"string": "pci0000:00"}


async def test_a_claim_gets_the_nodes_of_its_groups_and_the_one_that_opens_them(
    node: tuple[DraNode, VfioHost],
) -> None:
    claim = node[0].allocate("two", "vfio-0000-01-00-0", "vfio-0000-03-00-2")
    await in_thread(lambda: node[0].kubelet.prepare("team/vm", claim))
    (spec,) = node[0].files().values()
    paths = [each["containerEdits"]["deviceNodes"][0]["path"] for each in spec["devices"]]
    assert paths == ["/dev/vfio/7", "/dev/vfio/10"]
    assert [each["path"] for each in spec["containerEdits"]["deviceNodes"]] == ["/dev/vfio/vfio"]


async def test_a_group_that_leaves_vfio_is_tainted_and_waited_for(
    node: tuple[DraNode, VfioHost],
) -> None:
    dra, host = node
    name = "vfio-0000-02-00-0"
    host.silence("0000:02:00.0")
    await dra.until(lambda: dra.taints(name) == {"gpu.birentech.com/pci-config": "NoSchedule"})
    host.answer("0000:02:00.0")
    claim = dra.allocate("one", name)
    prepared = await in_thread(lambda: dra.kubelet.prepare("team/vm", claim))
    assert [each["device"] for each in prepared["uid-one"]] == [name]
    await dra.until(lambda: not dra.taints(name))
