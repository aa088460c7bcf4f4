"""The CDI file gives what `Allocate` would have given, and only devices in the file are offered."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.cdi.spec import names_for, offerable, spec_for, withheld
from biren_plugin.core.container_edits import ContainerEdits, edits_for
from biren_plugin.core.model import Device, DeviceList, HostFacts, Mount
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.files.cdi_file import render
from tests.support.cards import GPU, HALF, QUARTER, card, devices, ids, listed
from tests.support.cdi_resolver import Resolved, resolve, validate

VFIO_NODE = ("/dev/vfio/vfio", "rw")
HOST = HostFacts(control_node=True, mounts=(Mount("/usr/real", "/opt/birentech/lib/x.so"),))

# Whatever a path may hold that means something to YAML.
paths = st.text("aZ09 _.#:'\"-{}[]&*!|>%@`,?\\", min_size=1, max_size=12).map("/opt/{}".format)
hosts = st.builds(
    HostFacts,
    control_node=st.booleans(),
    dri_node=st.one_of(st.none(), st.just("/dev/dri/renderD128")),
    mounts=st.lists(st.builds(Mount, paths, paths), max_size=3, unique=True).map(tuple),
)


def group(number: int) -> Card:
    return Card(f"/dev/vfio/{number}", number)


def parse(text: str) -> dict[str, Any]:
    """The document as another parser than the one that wrote it reads it."""
    from ruamel.yaml import YAML

    document: dict[str, Any] = YAML(typ="rt").load(text)
    return document


@st.composite
def nodes(draw: st.DrawFn) -> list[DeviceList]:
    """Draw a node: its cards under the resources of their splits, or its VFIO groups."""
    host = draw(hosts)
    make = group if draw(st.booleans()) else card
    numbers = draw(st.lists(st.integers(0, 300), min_size=1, max_size=24, unique=True))
    by_resource: dict[str, list[Device]] = {}
    for number in sorted(numbers):
        resource = draw(st.sampled_from([GPU, HALF, QUARTER]))
        reasons = draw(st.sampled_from([(), ("it is hot",)]))
        by_resource.setdefault(resource, []).append(Device(make(number), resource, reasons))
    return [DeviceList(name, tuple(found), host) for name, found in by_resource.items()]


@given(nodes(), st.data(), st.sampled_from(["yaml", "json"]))
def test_names_resolve_to_what_allocate_gives_without_cdi(
    lists: list[DeviceList], data: st.DataObject, form: Any
) -> None:
    spec = spec_for(lists)
    assert spec is not None
    read = parse(render(spec, form))
    assert read == spec
    validate(read)
    for each in lists:
        chosen = data.draw(st.sets(st.sampled_from([device.card for device in each.devices])))
        direct = edits_for(list(chosen), each.host, "index")
        named = names_for(list(chosen), each.host, "index")
        assert named.env == direct.env
        assert not named.device_nodes
        assert not named.mounts
        resolved = resolve(read, list(named.cdi_devices))
        assert resolved.nodes - {VFIO_NODE} == {(path, "rw") for path in direct.device_nodes}
        assert resolved.mounts == {(one.host_path, one.container_path) for one in direct.mounts}


def test_a_container_without_cards_gets_no_names() -> None:
    assert names_for([], HOST) == ContainerEdits()


def test_vfio_groups_have_names_that_are_not_paths() -> None:
    spec = spec_for([listed(GPU, Device(group(7), GPU), Device(group(12), GPU))])
    assert spec is not None
    assert [device["name"] for device in spec["devices"]] == ["vfio-7", "vfio-12"]
    assert names_for([group(12), group(7)], HOST).cdi_devices == (
        "birentech.com/gpu=vfio-7",
        "birentech.com/gpu=vfio-12",
    )
    assert resolve(spec, ["birentech.com/gpu=vfio-7"]) == Resolved(
        frozenset({("/dev/vfio/7", "rw"), VFIO_NODE}), frozenset()
    )


def test_a_card_listed_by_two_resources_is_one_device() -> None:
    [old] = devices(GPU, 2)
    spec = spec_for([listed(GPU, old.because("replaced")), listed(HALF, *devices(HALF, 2, 3))])
    assert spec is not None
    validate(spec)
    assert [device["name"] for device in spec["devices"]] == ["card_2", "card_3"]


def test_a_vanished_card_is_not_in_the_file() -> None:
    gone = Device(Card("card_1", 1, present=False), GPU, ("gone from the bus",))
    spec = spec_for([listed(GPU, *devices(GPU, 0), gone)])
    assert spec is not None
    assert [device["name"] for device in spec["devices"]] == ["card_0"]


def test_an_unhealthy_card_stays_in_the_file() -> None:
    sick = Device(card(0, node=NodeState.MISSING), GPU, ("its node is missing",))
    assert spec_for([listed(GPU, sick)]) is not None


@pytest.mark.parametrize("lists", [[], [listed(GPU)]])
def test_a_node_without_a_card_has_no_spec(lists: list[DeviceList]) -> None:
    assert spec_for(lists) is None


def test_a_host_with_nothing_for_every_container_has_no_common_edits() -> None:
    spec = spec_for([listed(GPU, *devices(GPU, 0))])
    assert spec is not None
    assert "containerEdits" not in spec


def no_reason(_name: str) -> str:
    return ""


def test_a_device_missing_from_the_file_is_unhealthy_with_the_reason() -> None:
    spec = spec_for([listed(GPU, *devices(GPU, 0, 1))])
    offered = offerable(listed(GPU, *devices(GPU, 0, 1, 2)), spec, no_reason, "the disk is full")
    assert [device.reasons for device in offered.devices] == [(), (), ("the disk is full",)]


@pytest.mark.parametrize(
    "changed",
    [{"kind": "vendor.com/gpu"}, {"devices": []}, {"devices": [
        {"name": "card_0", "containerEdits": {"deviceNodes": [{"path": "/dev/biren/card_1"}]}}
    ]}],
    ids=["kind", "devices", "node"],
)  # fmt: skip
def test_a_file_with_other_edits_under_the_cards_name_lacks_the_card(
    changed: dict[str, Any],
) -> None:
    judged = listed(GPU, *devices(GPU, 0))
    spec = spec_for([judged])
    assert spec is not None
    assert offerable(judged, spec, no_reason, "lacks it") == judged
    assert not offerable(judged, spec | changed, no_reason, "lacks it").devices[0].healthy
    assert not offerable(judged, None, no_reason, "lacks it").devices[0].healthy


def test_a_vanished_card_is_not_reported_as_missing_from_the_file() -> None:
    gone = Device(Card("card_1", 1, present=False), GPU, ("gone from the bus",))
    assert offerable(listed(GPU, gone), None, no_reason, "lacks it").devices == (gone,)


def test_before_the_disk_agrees_only_worse_verdicts_are_passed_on() -> None:
    sick, well, unknown = devices(GPU, 0, 1, 2)
    before = listed(GPU, sick, well.because("was sick"))
    judged = listed(GPU, sick.because("is sick"), well, unknown)
    passed = withheld(judged, before)
    assert ids(passed.devices) == ["card_0", "card_1"], "a new card waits"
    assert [device.reasons for device in passed.devices] == [("is sick",), ("was sick",)]


@st.composite
def changes(draw: st.DrawFn) -> tuple[DeviceList, DeviceList]:
    """Two lists of one resource, one after the other."""

    def draw_list() -> DeviceList:
        numbers = draw(st.sets(st.integers(0, 6)))
        sick = draw(st.sets(st.integers(0, 6)))
        found = devices(GPU, *sorted(numbers))
        return listed(
            GPU, *(each.because("sick") if each.card.number in sick else each for each in found)
        )

    return draw_list(), draw_list()


@given(changes())
def test_devices_passed_on_early_are_never_better_than_before_nor_than_the_verdict(
    change: tuple[DeviceList, DeviceList],
) -> None:
    before, judged = change
    healthy = {device.id for device in withheld(judged, before).devices if device.healthy}
    for each in (before, judged):
        assert healthy <= {device.id for device in each.devices if device.healthy}
    settled = attrs.evolve(judged, devices=tuple(each for each in judged.devices if each.healthy))
    assert withheld(settled, settled) == settled
