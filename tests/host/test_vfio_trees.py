"""A kata node is read even if it changes during the scan, or makes no sense at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.health.verdicts import HealthKeeper
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory_log import remark_inventory
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Holder, Observed
from biren_plugin.host.readers import read_once
from biren_plugin.host.vfio_groups import VfioGroupReader
from tests.support.cards import GPU
from tests.support.vfio_host import HYPERVISOR, VFIO, VfioHost, physical, virtual


class Race:
    """Does something at one of the calls by which a reader reads files."""

    def __init__(self, at: int, then: Callable[[], object]) -> None:
        self.calls = 0
        self._at = at
        self._then = then

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def racing(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                self._then()
            return call(*arguments, **keywords)

        return racing


@pytest.mark.parametrize("gone", ["virtual", "whole"])
def test_a_function_may_vanish_between_any_two_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    at = 0
    while True:
        at += 1
        host = VfioHost(tmp_path / str(at))
        host.add_whole(0, 9)
        host.add_split(1, [20, 21])
        host.add_whole(2, 30)
        vanishing = virtual(1, 0) if gone == "virtual" else physical(0)
        reader = VfioGroupReader(host.root)
        with monkeypatch.context() as patched:
            race = Race(at, lambda host=host, vanishing=vanishing: host.remove(vanishing))  # type: ignore[misc]
            for name in ("readlink", "open", "listdir", "scandir", "stat", "access"):
                patched.setattr(os, name, race.around(getattr(os, name)))
            look = read_once(reader)
        inventory = judge_once(look)
        for group in {9, 21, 30} - {9 if gone == "whole" else 20}:
            device = inventory.find(f"/dev/vfio/{group}")
            assert device is not None, f"group {group}, call {at}"
            assert device.healthy, f"{device.reasons}, call {at}"
        if race.calls < at:
            break
    assert at > 30, "the race was never run"


ADDRESSES = ["0000:01:00.0", "0000:01:00.1", "0000:01:00.2", "0000:02:00.0", "nonsense"]
LINKS = ["driver", "iommu_group", "physfn", "virtfn0", "virtfn1", "virtfnx"]
TARGETS = [
    f"../../drivers/{VFIO}", f"../../drivers/{HYPERVISOR}", "../../drivers/biren",
    "../../../../kernel/iommu_groups/1", "../../../../kernel/iommu_groups/2", "1", "99999999",
    *(f"../{address}" for address in ADDRESSES), ".", "..", "driver", "/", "",
]  # fmt: skip
ATTRIBUTES = ["vendor", "sriov_numvfs", "numa_node", "config", "current_link_width"]
CONTENTS = st.sampled_from([b"0x1ee0\n", b"0x1ee0\n", b"4\n", b"-1\n", b"\xff" * 64]) | st.binary()


@st.composite
def functions(draw: st.DrawFn) -> dict[str, str | bytes | None]:
    """Draw a function's directory: links and files by name, None is a directory."""
    links = draw(st.dictionaries(st.sampled_from(LINKS), st.sampled_from(TARGETS) | st.none()))
    files = draw(st.dictionaries(st.sampled_from(ATTRIBUTES), CONTENTS | st.none()))
    usual = {"vendor": b"0x1ee0\n"} if draw(st.booleans()) else {}
    return {**links, **files, **usual}


@given(
    st.dictionaries(st.sampled_from(ADDRESSES), functions()),
    st.dictionaries(st.sampled_from(["1", "2", "vfio", "x"]), st.booleans()),
)
def test_any_tree_is_read_and_judged(
    tree: dict[str, dict[str, str | bytes | None]], nodes: dict[str, bool]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bus = Path(folder, "sys/bus/pci/devices")
        for address, entries in tree.items():
            (bus / address).mkdir(parents=True)
            for name, content in entries.items():
                path = bus / address / name
                if isinstance(content, bytes):
                    path.write_bytes(content)
                elif content:
                    path.symlink_to(content)
                else:
                    path.mkdir()
        for name, is_node in nodes.items():
            path = Path(folder, "dev/vfio", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("/dev/null" if is_node else "nowhere")
        reader = VfioGroupReader(Path(folder))
        first = read_once(reader)
        assert read_once(reader) == first
    inventory = judge_once(first)
    assert_speaks_of_pci_only(inventory)


def assert_speaks_of_pci_only(inventory: Inventory) -> None:
    texts = [*inventory.unsettled, *(each.text for each in remark_inventory(None, inventory))]
    texts += [
        text for each in inventory.lists for device in each.devices for text in device.reasons
    ]
    for text in texts:
        assert "brsmi" not in text
        assert "/sys/class/biren" not in text


def test_remarks_about_groups_on_a_changing_node_name_only_pci_addresses(
    tmp_path: Path,
) -> None:
    host = VfioHost(tmp_path / "host")
    host.add_split(0, [20, 21])
    host.add_whole(1, 30)
    keeper, reader = InventoryKeeper(), VfioGroupReader(host.root)
    health = HealthKeeper()
    changes: list[Callable[[], object]] = [
        lambda: host.bind(virtual(0, 0), "biren"),
        lambda: host.node(30).unlink(),
        lambda: host.silence(virtual(0, 1)),
        lambda: host.remove(virtual(0, 1)),
        lambda: host.remove(physical(1)),
        lambda: host.unsplit(0),
    ]
    for now, change in enumerate([lambda: None, *changes]):
        change()
        seen = Observed(
            read_once(reader), holders={(GPU, "/dev/vfio/99"): Holder("default", "pod")}
        )
        inventory = health.judge(keeper.update(seen, float(now)), seen, float(now))
        assert_speaks_of_pci_only(inventory)
    found = {id_: inventory.find(id_) for id_ in ("/dev/vfio/20", "/dev/vfio/30")}
    for device, address in zip(found.values(), (physical(0), physical(1)), strict=True):
        assert device is not None
        assert f"GPU {address} is gone from sysfs" in "; ".join(device.reasons)
