"""The log reports each change that an operator wants to know, once, and nothing else."""

from collections.abc import Iterable

import attrs
import pytest

from biren_plugin.core.inventory_log import (
    Remark,
    names_of,
    remark_driver,
    remark_inventory,
    remark_lists,
)
from biren_plugin.core.model import Device, DeviceList, Excluded, HostFacts, Inventory
from tests.support.cards import GPU, HALF, card, devices, listed

ONE_CARD = Inventory((listed(GPU, *devices(GPU, 0)),))
NO_CARD = Inventory()
NO_DRIVER = Inventory(driver_loaded=False)


def remark_list(before: DeviceList | None, after: DeviceList) -> list[Remark]:
    """The remarks about a node of one resource."""
    return remark_lists([before] if before is not None else [], [after])


@pytest.mark.parametrize("before", [None, ONE_CARD, NO_DRIVER])
def test_the_remark_about_a_node_without_cards_gives_advice(before: Inventory | None) -> None:
    [remark] = remark_inventory(before, NO_CARD)
    assert remark.bad
    assert "no Biren card in /sys/class/biren" in remark.text
    assert "lspci" in remark.text


@pytest.mark.parametrize("before", [None, ONE_CARD, NO_CARD])
def test_the_remark_about_a_node_without_the_driver_gives_advice(before: Inventory | None) -> None:
    [remark] = remark_inventory(before, NO_DRIVER)
    assert remark.bad
    assert "no /sys/class/biren" in remark.text
    assert "modprobe biren" in remark.text


@pytest.mark.parametrize("same", [NO_CARD, NO_DRIVER, ONE_CARD])
def test_an_unchanged_state_is_not_reported_again(same: Inventory) -> None:
    assert remark_inventory(same, same) == []


def test_a_node_with_cards_needs_no_remark() -> None:
    assert remark_inventory(None, ONE_CARD) == []


def test_unsettled_cards_and_absent_files_are_reported_once() -> None:
    first = Inventory(ONE_CARD.lists, ("GPU 1 hangs",), host=HostFacts(absent=("/usr/bin/brsmi",)))
    second = Inventory(
        ONE_CARD.lists,
        ("GPU 1 hangs", "GPU 2 hangs"),
        host=HostFacts(absent=("/usr/bin/brsmi", "/usr/lib/libbiren-ml.so")),
    )
    assert remark_inventory(None, first) == [
        Remark("gpu_unsettled", "GPU 1 hangs", bad=True),
        Remark(
            "file_missing", "containers will lack /usr/bin/brsmi: it is not on the node", bad=True
        ),
    ]
    assert remark_inventory(first, second) == [
        Remark("gpu_unsettled", "GPU 2 hangs", bad=True),
        Remark(
            "file_missing",
            "containers will lack /usr/lib/libbiren-ml.so: it is not on the node",
            bad=True,
        ),
    ]
    assert remark_inventory(second, first) == [
        Remark("file_found", "containers get /usr/lib/libbiren-ml.so again")
    ]
    assert Remark("gpu_settled", "no split of a GPU is under way any more") in remark_inventory(
        first, ONE_CARD
    )


def test_the_first_list_reports_the_found_cards() -> None:
    three = listed(GPU, *devices(GPU, 0, 1, 2))
    assert remark_list(None, three) == [
        Remark("devices_found", f"{GPU}: found card_0, card_1, card_2 (3)")
    ]
    assert remark_list(None, listed(GPU, *devices(GPU, 7))) == [
        Remark("devices_found", f"{GPU}: found card_7")
    ]


def test_an_unchanged_list_is_not_reported() -> None:
    one, two = devices(GPU, 0, 1)
    before = listed(GPU, one, two.because("its node is missing"))
    assert remark_list(before, before) == []
    assert remark_list(before, DeviceList(GPU, before.devices, pulse=1)) == []
    assert remark_list(None, listed(GPU)) == []


def test_only_the_new_card_is_reported_as_found() -> None:
    before, after = listed(GPU, *devices(GPU, 0)), listed(GPU, *devices(GPU, 0, 1))
    assert remark_list(before, after) == [Remark("devices_found", f"{GPU}: found card_1")]


def test_a_card_that_becomes_unhealthy_or_changes_its_reason_is_reported_with_it() -> None:
    [device] = devices(GPU, 0)
    missing = listed(GPU, device.because("its node is missing"))
    both = listed(GPU, device.because("its node is missing", "it is hot"))
    said = Remark("device_unhealthy", f"{GPU}: card_0 is Unhealthy: its node is missing", bad=True)
    assert remark_list(None, missing) == [said], "found and Unhealthy is one line, not two"
    assert remark_list(listed(GPU, device), missing) == [said]
    assert remark_list(missing, both) == [
        Remark(
            "device_unhealthy",
            f"{GPU}: card_0 is Unhealthy: its node is missing; it is hot",
            bad=True,
        )
    ]


def test_a_recovered_card_is_reported() -> None:
    [device] = devices(GPU, 0)
    before, after = listed(GPU, device.because("its node is missing")), listed(GPU, device)
    assert remark_list(before, after) == [
        Remark("device_healthy", f"{GPU}: card_0 is Healthy again")
    ]


def test_a_warning_of_a_healthy_card_is_reported_once() -> None:
    [device] = devices(GPU, 0)
    warned = attrs.evolve(device, warnings=("its link is narrow",))
    both = attrs.evolve(device, warnings=("its link is narrow", "it is warm"))
    narrow = Remark("device_warning", f"{GPU}: card_0: its link is narrow", bad=True)
    assert remark_list(listed(GPU, device), listed(GPU, warned)) == [narrow]
    assert remark_list(listed(GPU, warned), listed(GPU, warned)) == []
    assert remark_list(listed(GPU, warned), listed(GPU, both)) == [
        Remark("device_warning", f"{GPU}: card_0: it is warm", bad=True)
    ]
    assert remark_list(listed(GPU, both), listed(GPU, warned)) == []
    was = "no warning any more (was: its link is narrow; it is warm)"
    assert remark_list(listed(GPU, both), listed(GPU, device)) == [
        Remark("warning_cleared", f"{GPU}: card_0: {was}")
    ]


def test_a_driver_that_is_too_old_is_reported_once_and_its_replacement_too() -> None:
    [old] = remark_driver(None, "1.0.0")
    assert (old.event, old.bad) == ("driver_too_old", True)
    assert remark_driver("1.0.0", "1.0.0") == []
    assert remark_driver(None, "9.0.0") == []
    assert remark_driver("1.0.0", "9.0.0") == [
        Remark("driver_new_enough", "driver 9.0.0 is new enough")
    ]


def test_a_probe_that_is_set_aside_is_reported_once() -> None:
    suspect = Inventory(ONE_CARD.lists, suspects=("probe pci-config condemned all",))
    assert remark_inventory(ONE_CARD, suspect) == [
        Remark("probe_suspect", "probe pci-config condemned all", bad=True)
    ]
    assert remark_inventory(suspect, suspect) == []


def test_the_end_of_a_suspicion_and_of_a_missing_file_is_reported() -> None:
    host = HostFacts(absent=("/usr/bin/brsmi",))
    before = Inventory(ONE_CARD.lists, suspects=("probe pci-config condemned all",), host=host)
    assert [each.event for each in remark_inventory(before, ONE_CARD)] == [
        "suspects_cleared",
        "file_found",
    ]


def test_cards_that_left_are_reported() -> None:
    before = listed(GPU, *devices(GPU, 0, 1, 2))
    after = listed(GPU, *devices(GPU, 1))
    assert remark_list(before, after) == [
        Remark("devices_left", f"{GPU}: card_0, card_2 (2) left the list")
    ]


@pytest.mark.parametrize("unsettled", [(), ("GPU 0 is being re-split",)])
def test_missing_cards_are_reported_only_without_any_card(unsettled: tuple[str, ...]) -> None:
    found = attrs.evolve(NO_CARD, found=8, unsettled=unsettled)
    for before in (None, ONE_CARD, NO_DRIVER):
        assert not [each for each in remark_inventory(before, found) if "no Biren" in each.text]
    assert remark_inventory(found, NO_CARD), "the last one has gone"


def test_one_cause_for_all_cards_is_one_line() -> None:
    eight = devices(GPU, *range(8))
    unloaded = listed(GPU, *(each.because("the module was unloaded") for each in eight))
    assert remark_list(listed(GPU, *eight), unloaded) == [
        Remark(
            "device_unhealthy",
            f"{GPU}: card_0 to card_7 (8) are Unhealthy: the module was unloaded",
            bad=True,
        )
    ]
    [again] = remark_list(unloaded, listed(GPU, *eight))
    assert again.text == f"{GPU}: card_0 to card_7 (8) are Healthy again"
    assert again.fields["cards"] == tuple(f"card_{number}" for number in range(8))


def test_one_cause_for_cards_of_several_resources_is_one_line() -> None:
    lists = [listed(GPU, *devices(GPU, *range(6))), listed(HALF, *devices(HALF, *range(6, 11)))]
    unloaded = [
        listed(each.resource, *(one.because("the module was unloaded") for one in each.devices))
        for each in lists
    ]
    [remark] = remark_lists(lists, unloaded)
    expected = f"{HALF}, {GPU}: card_0 to card_10 (11) are Unhealthy: the module was unloaded"
    assert remark.text == expected
    assert remark.fields["resources"] == (HALF, GPU)
    [again] = remark_lists(unloaded, lists)
    assert again.text == f"{HALF}, {GPU}: card_0 to card_10 (11) are Healthy again"


def test_cards_are_found_by_resource() -> None:
    lists = [listed(HALF, *devices(HALF, 1, 2)), listed(GPU, *devices(GPU, 0))]
    assert [each.text for each in remark_lists([], lists)] == [
        f"{HALF}: found card_1, card_2 (2)",
        f"{GPU}: found card_0",
    ]


def test_a_cause_that_differs_only_in_the_cards_names_is_one_line() -> None:
    twelve = [
        Device(card(number, number, address=f"0000:{number + 16:02x}:00.0"), GPU)
        for number in range(12)
    ]
    before = listed(GPU, *twelve)
    after = listed(
        GPU,
        *(
            each.because(f"{each.card.path} is missing; see GPU {each.card.physical_id}")
            for each in twelve[:11]
        ),
        twelve[11].because("it is hot"),
    )
    assert [each.text for each in remark_list(before, after)] == [
        f"{GPU}: card_0 to card_10 (11) are Unhealthy: /dev/biren/card_0 is missing; see GPU 0 "
        "(and likewise the others)",
        f"{GPU}: card_11 is Unhealthy: it is hot",
    ]


def test_a_recovering_card_needs_no_action() -> None:
    one, two = devices(GPU, 0, 1)
    waits = "it has recovered and returns to service after 2 s without a fault (was: no node)"
    broken = listed(GPU, one.because("no node"), two.because("no node"))

    def waiting(*chosen: Device) -> DeviceList:
        return listed(
            GPU, *(attrs.evolve(each, reasons=(waits,), recovering=True) for each in chosen)
        )

    [single] = remark_list(listed(GPU, one.because("no node")), waiting(one))
    assert single == Remark("device_recovering", f"{GPU}: card_0 {waits.removeprefix('it ')}")
    [both] = remark_list(broken, waiting(one, two))
    assert both.text.startswith(f"{GPU}: card_0, card_1 (2) have recovered and return to")
    assert not both.bad


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        ((3,), "card_3"),
        ((1, 2, 10), "card_1, card_2, card_10 (3)"),
        ((0, 1, 2, 3, 9, 10), "card_0 to card_3, card_9, card_10 (6)"),
        (range(8, 12), "card_8 to card_11 (4)"),
    ],
)
def test_names_are_ordered_by_number(numbers: Iterable[int], names: str) -> None:
    assert names_of(devices(GPU, *numbers)) == names


def test_a_thousand_cards_that_appear_fail_and_recover_are_three_lines() -> None:
    cards = devices(GPU, *range(1024))
    lists = [
        listed(GPU, *cards),
        listed(GPU, *(each.because(f"{each.card.path} is missing") for each in cards)),
        listed(GPU, *cards),
    ]
    remarks = [
        remark_list(before, after) for before, after in zip([None, *lists], lists, strict=False)
    ]
    assert [len(each) for each in remarks] == [1, 1, 1]
    assert all(len(each.text) < 160 for [each] in remarks)


def test_excluded_cards_and_words_without_a_card_are_reported_once() -> None:
    [device] = devices(GPU, 1)
    node = attrs.evolve(
        ONE_CARD, excluded=(Excluded(device, "card_1"),), unmatched=("--exclude card_9: no card",)
    )
    excluded, unmatched = remark_inventory(None, node)
    assert excluded == Remark(
        "card_excluded", "card_1 is excluded by --exclude card_1, and not offered"
    )
    assert excluded.fields == {"card": "card_1"}
    assert unmatched == Remark("exclude_unmatched", "--exclude card_9: no card", bad=True)
    assert remark_inventory(node, node) == []


@pytest.mark.parametrize("driver_loaded", [True, False])
def test_a_node_without_vfio_groups_is_a_fault(driver_loaded: bool) -> None:
    [remark] = remark_inventory(None, Inventory(shows_groups=True, driver_loaded=driver_loaded))
    assert remark.bad
    assert "/sys/bus/pci/devices" in remark.text


def test_the_fields_of_a_remark_name_the_card_and_the_reason() -> None:
    [device] = devices(GPU, 0)
    [remark] = remark_list(listed(GPU, device), listed(GPU, device.because("it is hot")))
    assert remark.fields == {"resource": GPU, "card": "card_0", "reason": "it is hot"}
    [found] = remark_list(None, listed(GPU, *devices(GPU, 0, 1)))
    assert found.fields == {"resource": GPU, "cards": ("card_0", "card_1")}
