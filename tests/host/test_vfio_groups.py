"""One scan reads all groups of a kata node, and no broken file keeps the others from being read."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.inventory_log import remark_inventory
from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse.card import Card, FunctionState, Link, NodeState
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.readers import read_once
from biren_plugin.host.vfio_groups import VfioGroupReader
from tests.support.cards import GPU, HALF, QUARTER
from tests.support.recorded import HOSTS
from tests.support.vfio_host import VfioHost, physical, virtual

LINK = Link(speed=32.0, width=16, max_speed=32.0, max_width=16)


@pytest.fixture
def host(tmp_path: Path) -> VfioHost:
    return VfioHost(tmp_path / "host")


def read(host: VfioHost) -> Snapshot:
    return read_once(VfioGroupReader(host.root))


def by_number(look: Snapshot) -> dict[int, Card]:
    return {card.number: card for card in look.cards}


def listed(host: VfioHost) -> dict[str, list[str]]:
    """Return the ids under each resource, healthy or not."""
    return {
        each.resource: [device.id for device in each.devices]
        for each in judge_once(read(host)).lists
    }


def reasons(host: VfioHost, group: int) -> str:
    device = judge_once(read(host)).find(f"/dev/vfio/{group}")
    assert device is not None
    return "; ".join(device.reasons)


def test_a_whole_function_is_read_with_all_its_sysfs_attributes(host: VfioHost) -> None:
    host.add_whole(5, 9)
    assert read(host).cards == (
        Card(
            name="/dev/vfio/9",
            number=9,
            physical_id=6 << 8,
            pci_path=("pci0000:00", "0000:00:06.0", physical(5)),
            numa_node=1,
            split=1,
            link=LINK,
            function=FunctionState.ANSWERS,
            aer_fatal=0,
            aer_nonfatal=0,
            functions=(physical(5),),
        ),
    )


@pytest.mark.parametrize(("parts", "resource"), [(1, GPU), (2, HALF), (4, QUARTER)])
def test_virtual_functions_are_listed_under_the_resource_of_their_number(
    host: VfioHost, parts: int, resource: str
) -> None:
    host.add_split(0, range(20, 20 + parts))
    assert listed(host) == {resource: [f"/dev/vfio/{20 + part}" for part in range(parts)]}
    for number, card in enumerate(read(host).cards):
        assert (card.function, card.split) == (FunctionState.ANSWERS, parts)
        assert card.functions == (virtual(0, number),)
        assert card.link == LINK, "the physical function's"


def test_a_number_of_parts_without_a_resource_is_reported_and_left_out(host: VfioHost) -> None:
    host.add_split(0, [20, 21, 22])
    host.add_whole(1, 30)
    assert listed(host) == {GPU: ["/dev/vfio/30"]}
    (sentence,) = judge_once(read(host)).unsettled
    assert sentence == f"GPU {physical(0)} is split into 3: there is no resource for that"


def test_a_function_without_virtual_functions_is_only_reported(host: VfioHost) -> None:
    host.add_split(0, [])
    assert listed(host) == {}
    (sentence,) = judge_once(read(host)).unsettled
    assert sentence.startswith(f"PCI function {physical(0)} has no virtual functions")


def test_a_shared_group_is_one_device_with_the_faults_of_all_its_functions(host: VfioHost) -> None:
    host.add_split(0, [20, 20, 21, 21])
    assert listed(host) == {QUARTER: ["/dev/vfio/20", "/dev/vfio/21"]}
    assert read(host).cards[0].functions == (virtual(0, 0), virtual(0, 1))
    host.silence(virtual(0, 1))
    assert f"function {virtual(0, 1)} answers 0xFF" in reasons(host, 20)
    assert not reasons(host, 21)


def test_another_vendors_function_with_a_driver_makes_its_group_unhealthy(
    host: VfioHost,
) -> None:
    host.add_whole(0, 9)
    host.add_function("0000:01:00.1", 9, vendor=0x8086, driver="snd_hda_intel")
    text = reasons(host, 9)
    assert "function 0000:01:00.1 (snd_hda_intel) of its IOMMU group is not bound" in text
    assert "lspci -nnk -s 0000:01:00.1" in text
    host.bind("0000:01:00.1", "")
    assert not reasons(host, 9)


@pytest.mark.parametrize("driver", ["biren", ""])
def test_a_wrong_driver_makes_the_function_unhealthy_and_the_reason_gives_a_command(
    host: VfioHost, driver: str
) -> None:
    _, second = host.add_split(0, [20, 21])
    host.bind(second, driver)
    assert not reasons(host, 20)
    assert f"function {second} ({driver or 'no driver'})" in reasons(host, 21)
    assert f"lspci -nnk -s {second}" in reasons(host, 21)


def test_a_group_without_its_node_is_unhealthy(host: VfioHost) -> None:
    host.add_whole(0, 9)
    host.node(9).unlink()
    assert "device node /dev/vfio/9 is missing" in reasons(host, 9)
    host.node(9).touch()
    assert "/dev/vfio/9 is not a character device" in reasons(host, 9)


def test_an_unreadable_header_is_not_a_fault(host: VfioHost) -> None:
    host.add_whole(0, 9)
    (host.folder(physical(0)) / "config").unlink()
    assert read(host).cards[0].function is FunctionState.UNKNOWN
    assert not reasons(host, 9)


def test_a_whole_gpu_taken_from_vfio_is_still_listed(host: VfioHost) -> None:
    host.add_whole(0, 9)
    reader = VfioGroupReader(host.root)
    assert read_once(reader).cards[0].unbound == ()
    host.bind(physical(0), "biren")
    (card,) = read_once(reader).cards
    assert (card.unbound, card.node) == ((f"{physical(0)} (biren)",), NodeState.MISSING)
    assert not read(host).cards, "who did not know it has no reason to offer it"
    host.remove(physical(0))
    assert not read_once(reader).cards


@pytest.mark.parametrize("link", ["virtfn1", "driver", "iommu_group", "physfn"])
def test_a_dangling_link_affects_only_its_own_function(host: VfioHost, link: str) -> None:
    _, broken = host.add_split(0, [20, 21])
    host.add_whole(1, 30)
    folder = host.folder(physical(0) if link == "virtfn1" else broken)
    (folder / link).unlink()
    (folder / link).symlink_to("../nowhere/9")
    for card in (20, 30):
        assert not reasons(host, card)


def test_a_partial_tree_is_read_as_far_as_possible(host: VfioHost) -> None:
    host.add_split(0, [20, 21])
    for attribute in ("sriov_numvfs", "numa_node", "config", "aer_dev_fatal"):
        (host.folder(physical(0)) / attribute).unlink()
    for card in read(host).cards:
        assert (card.split, card.numa_node, card.aer_fatal) == (2, None, None)


def test_constant_attributes_are_read_once_for_each_function(host: VfioHost) -> None:
    host.add_whole(0, 9)
    reader = VfioGroupReader(host.root)
    before = read_once(reader)
    host.write(physical(0), "numa_node", "7")
    host.write(physical(0), "vendor", "0x8086")
    assert read_once(reader) == before
    assert reader.names() == ["/dev/vfio/9"]
    card = reader.read("/dev/vfio/9", fresh=True)
    assert card is not None
    assert card.numa_node == 7
    host.remove(physical(0))
    assert read_once(reader).cards == ()
    host.add_whole(0, 9)
    assert read_once(reader) == before, "another function at the same address"


def test_an_unreadable_vendor_is_read_again(host: VfioHost) -> None:
    host.add_whole(0, 9)
    reader = VfioGroupReader(host.root)
    vendor = host.folder(physical(0)) / "vendor"
    vendor.rename(vendor.with_name("later"))
    assert reader.names() == []
    vendor.with_name("later").rename(vendor)
    assert reader.names() == ["/dev/vfio/9"]


def test_a_hung_group_is_shown_as_far_as_its_links_show(host: VfioHost) -> None:
    host.add_split(0, [20, 21])
    reader = VfioGroupReader(host.root)
    reader.names()
    look = reader.snapshot({}, ["/dev/vfio/20", "/dev/vfio/99"])
    (card,) = look.cards
    assert card.hung
    assert (card.split, card.pci_address) == (2, virtual(0, 0))
    (again,) = reader.snapshot({"/dev/vfio/21": card}, ["/dev/vfio/21"]).cards
    assert again == card


def test_a_host_without_a_pci_bus_differs_from_one_without_a_function(tmp_path: Path) -> None:
    look = read_once(VfioGroupReader(tmp_path))
    assert look == Snapshot(driver_loaded=False, shows_groups=True)
    assert "no /sys/bus/pci/devices: waiting" in remark_inventory(None, judge_once(look))[0].text
    look = read(VfioHost(tmp_path / "host"))
    assert look == Snapshot(shows_groups=True)
    assert "lspci -nnkd 1ee0:" in remark_inventory(None, judge_once(look))[0].text


def test_an_unreadable_bus_is_an_error_with_its_reason(
    host: VfioHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        raise OSError(errno.EMFILE, "Too many open files", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(HostUnreadable, match="cannot read /sys/bus/pci/devices: Too many open"):
        VfioGroupReader(host.root).names()


def test_a_recorded_host_is_read_as_its_readme_describes() -> None:
    look = read_once(VfioGroupReader(HOSTS / "sriov_mixed"))
    inventory = judge_once(look)
    found = {
        each.resource: {device.id.rpartition("/")[2]: device.healthy for device in each.devices}
        for each in inventory.lists
    }
    assert found == {
        GPU: {"17": True, "18": False},
        HALF: {"40": True},
        QUARTER: {"50": True, "51": True, "52": False, "53": False},
    }
    assert [card.name for card in look.cards if inventory.find(card.name) is None] == [
        "/dev/vfio/60", "/dev/vfio/61", "/dev/vfio/62",
    ]  # fmt: skip
    assert len(inventory.unsettled) == 3


def test_a_suspended_function_is_not_woken_and_is_not_faulty(host: VfioHost) -> None:
    address = host.add_whole(0, 7)
    (host.folder(address) / "power").mkdir()
    host.write(address, "power/runtime_status", "suspended")
    host.silence(address)
    [card] = read(host).cards
    assert card.function is FunctionState.UNKNOWN
    assert card.link.width is None
    assert not reasons(host, 7)
    host.write(address, "power/runtime_status", "active")
    assert "0xFF" in reasons(host, 7)


def test_a_suspended_function_keeps_its_pcie_link_even_in_a_full_scan(
    host: VfioHost,
) -> None:
    address = host.add_whole(0, 7)
    reader = VfioGroupReader(host.root)
    before = read_once(reader).cards[0].link
    (host.folder(address) / "power").mkdir()
    host.write(address, "power/runtime_status", "suspended")
    host.write(address, "current_link_speed", "2.5 GT/s PCIe")
    [name] = reader.names()
    card = reader.read(name, fresh=True)
    assert card is not None
    assert card.link.speed == before.speed


def test_a_group_without_an_iommu_is_reported_as_such(host: VfioHost) -> None:
    host.add_whole(0, 0)
    host.node(0).rename(host.node(0).with_name("noiommu-0"))
    assert by_number(read(host))[0].node is NodeState.NOIOMMU
    assert "/dev/vfio/noiommu-0" in reasons(host, 0)
    assert "IOMMU" in reasons(host, 0)
    assert "missing" not in reasons(host, 0)
