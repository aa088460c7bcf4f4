"""The pool names hardware, has every attribute of each device, and is in allocation order."""

import re

import attrs
import pytest

from biren_plugin.core.dra.pool import HELD_BY_PLUGIN, SLICE_SIZE, known_uuids, pool_of, semantic
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.observed import Holder
from biren_plugin.core.parse.brml import CardReading, P2PLink
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.topology import build_topology
from tests.support.cards import GPU, HALF


def whole(number: int, **about: object) -> Device:
    path = ("pci0000:00", f"0000:{number + 1:02x}:00.0")
    card = Card(
        f"card_{number}", number, physical_id=number, memory=1 << 36, pci_path=path, numa_node=0
    )
    return attrs.evolve(Device(card, GPU), **about)  # type: ignore[arg-type]


def inventory(*devices: Device) -> Inventory:
    lists: dict[str, list[Device]] = {}
    for each in devices:
        lists.setdefault(each.resource, []).append(each)
    return Inventory(tuple(DeviceList(name, tuple(found)) for name, found in lists.items()))


def test_names_describe_the_hardware_and_are_dns_labels() -> None:
    half = Device(Card("card_4", 4, pci_path=("pci0000:00", "0000:3b:00.0")), HALF, instance=1)
    group = Card("/dev/vfio/9", 9, functions=("0000:3b:00.1",))
    names = [whole(2).pool_name, half.pool_name, Device(group, GPU).pool_name]
    assert names == ["gpu-0000-03-00-0", "svi-0000-3b-00-0-2-1", "vfio-0000-3b-00-1"]
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name or "") for name in names)


def test_a_card_without_an_address_is_reported_and_not_offered() -> None:
    pool = pool_of(inventory(Device(Card("card_0", 0), GPU)), None)
    assert pool.slices == ((),)
    (sentence,) = pool.nameless
    assert sentence.startswith("card_0 is not offered")


@pytest.mark.parametrize("path", [("0000:09:00.0",), ("", "0000:09:00.0"), ("virtual", "x")])
def test_every_device_has_every_attribute_and_no_unknown_place(path: tuple[str, ...]) -> None:
    """A claim with `matchAttribute` would take two cards of unknown place for neighbours."""
    bare = Device(Card("card_9", 9, pci_path=path), GPU)
    first, second = (
        set(each["attributes"]) for each in pool_of(inventory(whole(0), bare), "1").slices[0]
    )
    places = {f"resource.kubernetes.io/{each}" for each in ("pcieRoot", "numaNode")}
    assert first - second == places
    assert "resource.kubernetes.io/pciBusID" in second


def test_an_unknown_number_is_minus_one_and_an_unknown_version_zero() -> None:
    bare = Device(Card("card_9", 9, pci_path=("0000:09:00.0",)), GPU)
    ((device,),) = pool_of(inventory(bare), None).slices
    found = {key: device["attributes"][key] for key in ("physicalGpu", "numaNode")}
    assert found == {"physicalGpu": {"int": -1}, "numaNode": {"int": -1}}
    assert device["attributes"]["driverVersion"] == {"version": "0.0.0"}
    assert device["attributes"]["linkGroup"] == {"string": "card_9"}, "a group of its own"


def test_the_type_names_the_split_and_whether_it_is_a_vfio_group() -> None:
    half = Device(Card("card_4", 4, pci_path=("pci0000:00", "0000:3b:00.0")), HALF)
    group = Device(Card("/dev/vfio/9", 9, functions=("0000:3b:00.1",)), GPU)
    (entries,) = pool_of(inventory(whole(0), half, group), None).slices
    assert {each["name"]: each["attributes"]["type"]["string"] for each in entries} == {
        "gpu-0000-01-00-0": "gpu",
        "svi-0000-3b-00-0-2-0": "1-2-gpu",
        "vfio-0000-3b-00-1": "vfio-gpu",
    }
    bus = [each["attributes"]["resource.kubernetes.io/pciBusID"]["string"] for each in entries]
    assert bus == ["0000:3b:00.0", "0000:01:00.0", "0000:3b:00.1"]


def test_a_text_of_many_bytes_is_cut_to_those_that_the_api_takes() -> None:
    card = attrs.evolve(whole(0).card, product_name="\u58c1" * 64, product="\ud800")
    (device,) = pool_of(inventory(attrs.evolve(whole(0), card=card)), None).slices[0]
    assert device["attributes"]["productName"]["string"] == "\u58c1" * 21
    assert device["attributes"]["product"]["string"] == "?"


def test_each_probe_is_a_taint_and_a_warning_has_no_effect() -> None:
    sick = whole(0, reasons=("3 errors",), faults=("ecc",), warned=("temperature",))
    pool = pool_of(inventory(sick, whole(1)), None)
    assert pool.taints["gpu-0000-01-00-0"] == (
        {"key": "gpu.birentech.com/ecc", "effect": "NoSchedule"},
        {"key": "gpu.birentech.com/temperature", "effect": "None"},
    )
    assert pool.taints["gpu-0000-02-00-0"] == ()
    evicting = pool_of(inventory(sick), None, evicting=["ecc"])
    assert evicting.taints["gpu-0000-01-00-0"][0]["effect"] == "NoExecute"


def test_a_uuid_stays_while_the_library_is_silent_and_goes_with_its_card() -> None:
    reading = CardReading(number=0, uuid="GPU-1")
    first = known_uuids(inventory(whole(0), whole(1)), {0: reading}, {})
    pool = pool_of(inventory(whole(0), whole(1)), None, uuids=first)
    assert [each["attributes"]["uuid"]["string"] for each in pool.slices[0]] == ["GPU-1", ""]
    assert known_uuids(inventory(whole(0), whole(1)), {}, first) == first
    assert known_uuids(inventory(whole(1)), {}, first) == {}


def test_the_attributes_are_those_that_others_publish_too() -> None:
    (device,) = pool_of(inventory(whole(0, instance=0)), "1.12.0").slices[0]
    found = {key: next(iter(kind)) for key, kind in device["attributes"].items()}
    assert found == {
        "type": "string", "card": "string", "uuid": "string", "product": "string",
        "productName": "string", "physicalGpu": "int", "instance": "int", "numaNode": "int",
        "driverVersion": "version", "linkGroup": "string",
        "resource.kubernetes.io/pciBusID": "string", "resource.kubernetes.io/pcieRoot": "string",
        "resource.kubernetes.io/numaNode": "int",
    }  # fmt: skip
    assert device["attributes"]["resource.kubernetes.io/pciBusID"] == {"string": "0000:01:00.0"}
    assert device["attributes"]["resource.kubernetes.io/pcieRoot"] == {"string": "pci0000:00"}
    assert device["capacity"] == {"memory": {"value": str(1 << 36)}}


@pytest.mark.parametrize(
    ("evicting", "faults", "warned", "effects"),
    [
        ((), ("ecc",), (), {"ecc": "NoSchedule"}),
        (("ecc",), ("ecc", "pci-config"), (), {"ecc": "NoExecute", "pci-config": "NoSchedule"}),
        (("ecc",), (), ("ecc",), {"ecc": "None"}),
        ((), ("ecc",), ("link",), {"ecc": "NoSchedule", "link": "None"}),
    ],
)
def test_each_probe_has_its_own_effect(
    evicting: tuple[str, ...],
    faults: tuple[str, ...],
    warned: tuple[str, ...],
    effects: dict[str, str],
) -> None:
    device = whole(0, reasons=faults, faults=faults, warned=warned)
    (taints,) = pool_of(inventory(device), None, evicting=evicting).taints.values()
    assert {each["key"].partition("/")[2]: each["effect"] for each in taints} == effects


def test_a_reason_without_a_probe_is_a_taint_too() -> None:
    pool = pool_of(inventory(whole(0, reasons=("replaced by a new split",))), None)
    ((taint,),) = pool.taints.values()
    assert taint["key"] == "gpu.birentech.com/unhealthy"


def test_a_card_that_a_pod_holds_through_the_plugin_is_tainted() -> None:
    pool = pool_of(inventory(whole(0)), None, {(GPU, "card_0"): Holder("default", "old")})
    ((taint,),) = pool.taints.values()
    assert taint["key"].endswith(HELD_BY_PLUGIN)


def test_linked_cards_are_listed_side_by_side() -> None:
    devices = [whole(number) for number in range(4)]
    links = {(0, 2): P2PLink.DIRECT, (1, 3): P2PLink.DIRECT}
    topology = build_topology([each.card for each in devices], links, {})
    pool = pool_of(attrs.evolve(inventory(*devices), topology=topology), None)
    cards = [each["attributes"]["card"]["string"] for each in pool.slices[0]]
    assert cards == ["card_0", "card_2", "card_1", "card_3"]
    groups = [each["attributes"]["linkGroup"]["string"] for each in pool.slices[0]]
    assert groups == ["card_0", "card_0", "card_1", "card_1"]


def test_a_slice_has_at_most_as_many_cards_as_the_api_accepts() -> None:
    pool = pool_of(inventory(*(whole(number) for number in range(130))), None)
    assert [len(each) for each in pool.slices] == [SLICE_SIZE, SLICE_SIZE, 2]


def test_of_two_cards_with_one_name_the_healthy_one_is_offered() -> None:
    old = whole(0, reasons=("renamed",))
    new = attrs.evolve(whole(0), card=attrs.evolve(whole(0).card, name="card_7", number=7))
    pool = pool_of(inventory(old, new), None)
    assert [each.id for each in pool.devices.values()] == ["card_7"]


@pytest.mark.parametrize(
    ("version", "written"),
    [
        ("1.12.0", "1.12.0"),
        ("1.12", "1.12.0"),
        ("01.002.3-rc", "1.2.3"),
        (None, "0.0.0"),
        ("x", "0.0.0"),
    ],
)
def test_versions_have_the_apis_form(version: str | None, written: str) -> None:
    assert semantic(version) == written
