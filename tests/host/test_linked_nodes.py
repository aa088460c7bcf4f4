"""A device node that is a link is followed as on the host, and its real node goes into the container."""

import os
import stat
from pathlib import Path

import pytest

from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.cdi.spec import spec_for
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.settings import Settings
from biren_plugin.host.readers import read_host
from biren_plugin.simulate.host import SimulatedHost


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Return the inventory of a host whose `card_0` and `biren-m` are absolute links."""
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1})
    dev = host.root / "dev"
    (dev / "real").mkdir()
    for link, real in ((dev / "biren/card_0", "card"), (dev / "biren-m", "control")):
        link.unlink()
        try:
            os.mknod(dev / "real" / real, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes device nodes")
        link.symlink_to(f"/dev/real/{real}")
    seen = Observed(read_host(Settings(host_root=host.root)))
    return InventoryKeeper().update(seen, 0.0)


def test_allocate_names_the_usual_path_in_the_container_and_the_real_one_on_the_host(
    inventory: Inventory,
) -> None:
    (gpus,) = inventory.lists
    edits = edits_for([device.card for device in gpus.devices], gpus.host)
    assert edits.device_nodes == ("/dev/biren/card_0", "/dev/biren/card_1", "/dev/biren-m")
    assert dict(edits.links) == {
        "/dev/biren/card_0": "/dev/real/card",
        "/dev/biren-m": "/dev/real/control",
    }


def test_the_cdi_file_has_the_real_node_as_its_host_path(inventory: Inventory) -> None:
    spec = spec_for(inventory.lists)
    assert spec is not None
    first, second = (each["containerEdits"]["deviceNodes"] for each in spec["devices"])
    assert first == [
        {"path": "/dev/biren/card_0", "hostPath": "/dev/real/card", "permissions": "rw"}
    ]
    assert second == [{"path": "/dev/biren/card_1", "permissions": "rw"}]
    (control,) = spec["containerEdits"]["deviceNodes"]
    assert control["hostPath"] == "/dev/real/control"


@pytest.mark.parametrize(
    "target", ["/dev/biren/nowhere", "nowhere", "//dev//biren/nowhere", "../biren/nowhere"]
)
def test_a_link_that_leads_nowhere_is_not_called_a_missing_node(
    tmp_path: Path, target: str
) -> None:
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1})
    node = host.root / "dev/biren/card_0"
    node.unlink()
    node.symlink_to(target)
    snapshot = read_host(Settings(host_root=host.root))
    [reasons] = [
        device.reasons for device in judge_once(snapshot).lists[0].devices if device.id == "card_0"
    ]
    assert len(reasons) == 1
    assert reasons[0].startswith(
        "device node /dev/biren/card_0 is a link to /dev/biren/nowhere, which is missing, or not "
    )


def test_a_link_that_leads_back_to_itself_is_not_called_a_missing_node(tmp_path: Path) -> None:
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus({0: 1, 1: 1})
    for name, target in (("card_0", "card_1"), ("card_1", "card_0")):
        host.pull_node(name)
        (host.root / "dev/biren" / name).symlink_to(target)
    for device in judge_once(read_host(Settings(host_root=host.root))).lists[0].devices:
        [reason] = device.reasons
        assert reason.startswith(f"device node {device.card.path} is a link that leads back to ")
