"""Functions become the groups that can be passed through, whatever their links are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.parse import vfio
from biren_plugin.core.parse.card import FunctionState, NodeState
from biren_plugin.core.parse.pci_addresses import address_of, pci_number
from biren_plugin.core.parse.vfio import Function, Group, Layout, lay_out
from tests.support.vfio_host import HYPERVISOR, VFIO, physical, virtual

NODE = NodeState.CHARACTER_DEVICE


def whole(gpu: int, group: int | None, driver: str | None = VFIO) -> list[Function]:
    return [Function(physical(gpu), driver, group)]


def split(gpu: int, *groups: int | None) -> list[Function]:
    """A physical function and its virtual ones, each in its group."""
    parts = tuple(virtual(gpu, number) for number in range(len(groups)))
    return [
        Function(physical(gpu), HYPERVISOR, 100 + gpu, virtual_functions=parts),
        *(
            Function(part, VFIO, group, physical=False)
            for part, group in zip(parts, groups, strict=True)
        ),
    ]


def laid_out(*functions: list[Function], known_wholes: frozenset[str] = frozenset()) -> Layout:
    return lay_out({each.address: each for some in functions for each in some}, known_wholes)


def found(layout: Layout) -> dict[str, tuple[str, int]]:
    """The physical function behind each group, and into how many it is split."""
    return {name: (group.physical, group.instances) for name, group in layout.groups.items()}


@given(st.integers(0, 2**31))
def test_the_number_of_an_address_leads_back_to_it(number: int) -> None:
    assert pci_number(address_of(number)) == number


@pytest.mark.parametrize("text", ["", "0000:01:00", "0000:01:20.0", "0000:01:00.8", "virtfn0"])
def test_a_text_that_is_not_an_address_has_no_number(text: str) -> None:
    assert pci_number(text) is None


@pytest.mark.parametrize(
    ("link", "number"),
    [
        ("../../../kernel/iommu_groups/12", 12),
        ("12", 12),
        ("", None),
        ("groups/012", None),
        ("groups/noiommu-0", None),
        ("12/", None),
    ],
)
def test_the_link_of_a_group_ends_in_its_number(link: str, number: int | None) -> None:
    assert vfio.group_number(link) == number


def test_each_function_that_can_be_passed_through_is_a_group() -> None:
    layout = laid_out(whole(0, 9), split(1, 10, 11), split(2, 7))
    assert found(layout) == {
        "/dev/vfio/7": (physical(2), 1),
        "/dev/vfio/9": (physical(0), 1),
        "/dev/vfio/10": (physical(1), 2),
        "/dev/vfio/11": (physical(1), 2),
    }
    assert list(layout.groups) == ["/dev/vfio/7", "/dev/vfio/9", "/dev/vfio/10", "/dev/vfio/11"]
    assert layout.left_out == ()


def test_functions_that_share_a_group_are_one_card() -> None:
    layout = laid_out(split(1, 10, 10, 11, 11), split(2, 11, 12, 12, 12))
    assert {group.number: group.functions for group in layout.groups.values()} == {
        10: (virtual(1, 0), virtual(1, 1)),
        11: (virtual(1, 2), virtual(1, 3), virtual(2, 0)),
        12: (virtual(2, 1), virtual(2, 2), virtual(2, 3)),
    }
    assert layout.groups["/dev/vfio/11"].physical == physical(1), "the lowest"


def test_a_virtual_function_is_never_a_whole_gpu() -> None:
    pf, vf = split(1, 10)
    assert found(laid_out([pf, Function(vf.address, VFIO, 10)])) == {
        "/dev/vfio/10": (pf.address, 1)
    }
    assert laid_out([vf]).groups == {}, "its physical function is bound to no hypervisor"


@pytest.mark.parametrize("driver", ["biren", "", None])
def test_a_function_with_another_driver_is_not_for_vfio(driver: str | None) -> None:
    assert laid_out(whole(0, 9, driver)) == Layout()


@pytest.mark.parametrize("driver", ["biren", "", None, HYPERVISOR])
def test_a_whole_gpu_stays_one_when_bound_to_another_driver(driver: str | None) -> None:
    before = laid_out(whole(0, 9))
    after = laid_out(whole(0, 9, driver), known_wholes=before.wholes)
    assert after == before


def test_a_whole_gpu_is_no_longer_one_once_split_or_gone() -> None:
    before = laid_out(whole(0, 9))
    after = laid_out(split(0, 20, 21), known_wholes=before.wholes)
    assert list(after.groups) == ["/dev/vfio/20", "/dev/vfio/21"]
    assert laid_out(known_wholes=before.wholes) == Layout()


@pytest.mark.parametrize(
    ("functions", "named"),
    [
        (split(1), (physical(1), "no virtual functions", "sriov_numvfs")),
        (whole(1, None), (physical(1), "no IOMMU group", "ls -l /sys/bus/pci/devices")),
        (split(1, None), (virtual(1, 0), "no IOMMU group")),
        (split(1, 10)[:1], (virtual(1, 0), "no IOMMU group")),
        (split(1, 10) + split(2, 10, 10), ("group 10", virtual(1, 0), virtual(2, 1))),
    ],
    ids=["unsplit", "whole without a group", "part without a group", "part gone", "two splits"],
)
def test_functions_that_are_not_offered_are_reported(
    functions: list[Function], named: tuple[str, ...]
) -> None:
    layout = laid_out(functions, whole(5, 50))
    assert list(layout.groups) == ["/dev/vfio/50"], "the others are"
    (sentence,) = layout.left_out
    for text in named:
        assert text in sentence


@pytest.mark.parametrize(
    ("header", "state"),
    [
        (b"\xff\xff" + bytes(62), FunctionState.ANSWERS),
        (b"\xe0\x1e" + b"\xff" * 62, FunctionState.ANSWERS),
        (b"\xff" * 64, FunctionState.SILENT),
        (b"\xff" * 63, FunctionState.UNKNOWN),
        (b"", FunctionState.UNKNOWN),
        (None, FunctionState.UNKNOWN),
    ],
)
def test_only_a_header_of_all_ones_is_silent(header: bytes | None, state: FunctionState) -> None:
    assert vfio.function_state(header) is state


GROUP = Group("/dev/vfio/10", 10, (virtual(1, 0), virtual(1, 1)), physical(1), 4)


def test_the_card_of_a_group_has_its_physical_functions_attributes() -> None:
    texts = {
        "numa_node": "1\n",
        "current_link_width": "8",
        "sriov_numvfs": "4",
        "aer_dev_fatal": "",
    }
    card = vfio.card_of(
        GROUP, NODE, paths={virtual(1, 0): ("pci0000:00", virtual(1, 0))}, texts=texts
    )
    assert (card.name, card.path, card.number) == ("/dev/vfio/10", "/dev/vfio/10", 10)
    assert card.physical_id is not None
    assert address_of(card.physical_id) == physical(1)
    assert (card.numa_node, card.link.width, card.split) == (1, 8, 4)
    assert card.functions == GROUP.functions
    assert card.pci_address == virtual(1, 0)
    assert card.memory is None


@pytest.mark.parametrize(("text", "parts"), [("4", 4), ("2", 2), ("0", 4), ("garbage", 4), ("", 4)])
def test_the_number_of_parts_comes_from_the_physical_function_or_its_links(
    text: str, parts: int
) -> None:
    assert vfio.card_of(GROUP, NODE, paths={}, texts={"sriov_numvfs": text}).split == parts


def test_a_silent_function_makes_its_group_silent_and_is_named() -> None:
    answers = b"\xff\xff" + bytes(62)
    paths = {address: (address,) for address in GROUP.functions}
    headers = {virtual(1, 0): answers, virtual(1, 1): b"\xff" * 64}
    card = vfio.card_of(GROUP, NODE, paths=paths, headers=headers)
    assert (card.function, card.pci_address) == (FunctionState.SILENT, virtual(1, 1))
    headers[virtual(1, 1)] = answers
    card = vfio.card_of(GROUP, NODE, paths=paths, headers=headers)
    assert (card.function, card.pci_address) == (FunctionState.ANSWERS, virtual(1, 0))


@pytest.mark.parametrize(
    ("address", "driver", "unbound"),
    [
        (virtual(1, 0), "biren", (f"{virtual(1, 0)} (biren)",)),
        (virtual(1, 0), "", (f"{virtual(1, 0)} (no driver)",)),
        (virtual(1, 0), "pci-stub", (f"{virtual(1, 0)} (pci-stub)",)),
        (virtual(1, 0), None, ()),
        ("0000:02:1f.0", "snd_hda_intel", ("0000:02:1f.0 (snd_hda_intel)",)),
        ("0000:02:1f.0", "pcieport", ()),
        ("0000:02:1f.0", "", ()),
        (physical(1), HYPERVISOR, (f"{physical(1)} ({HYPERVISOR})",)),
    ],
)
def test_the_function_that_blocks_its_group_is_named(
    address: str, driver: str | None, unbound: tuple[str, ...]
) -> None:
    drivers = {virtual(1, 0): VFIO, virtual(1, 1): VFIO, address: driver}
    assert vfio.card_of(GROUP, NODE, paths={}, drivers=drivers).unbound == unbound


ADDRESSES = st.sampled_from([physical(0), physical(1), virtual(0, 0), virtual(0, 1), virtual(1, 0)])
FUNCTIONS = st.builds(
    Function,
    address=ADDRESSES,
    driver=st.sampled_from([VFIO, HYPERVISOR, "biren", "", None]),
    group=st.none() | st.integers(0, 3),
    physical=st.booleans(),
    virtual_functions=st.lists(ADDRESSES | st.just("0000:ff:00.0"), unique=True).map(tuple),
)


@given(st.lists(FUNCTIONS), st.sets(ADDRESSES))
def test_any_links_make_a_layout_without_duplicate_functions(
    functions: list[Function], known_wholes: set[str]
) -> None:
    layout = laid_out(functions, known_wholes=frozenset(known_wholes))
    given_away = [address for group in layout.groups.values() for address in group.functions]
    assert len(given_away) == len(set(given_away))
    for name, group in layout.groups.items():
        assert name == group.name == f"/dev/vfio/{group.number}"
        assert group.functions
        assert group.instances >= 1


def test_groups_and_sentences_are_in_the_order_of_addresses() -> None:
    layout = laid_out(whole(3, 30), split(2), whole(1, 10), split(0))
    assert list(layout.groups) == ["/dev/vfio/10", "/dev/vfio/30"]
    named = [sentence.split(" ")[2] for sentence in layout.left_out]
    assert named == [physical(0), physical(2)]
