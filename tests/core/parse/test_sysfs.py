"""Any text of sysfs makes a card: readable values are used, the rest is None."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.parse import sysfs
from biren_plugin.core.parse.card import Card, FunctionState, Link, NodeState

NODE = NodeState.CHARACTER_DEVICE
ATTRIBUTES = (*sysfs.CHANGING_ATTRIBUTES, *sysfs.FIXED_ATTRIBUTES)

# Text as sysfs could hold it, and text that is nearly right.
ANY_TEXT = st.text() | st.from_regex(r"\A\s*[-+]?[0-9_.]*\s*(kB|GT/s)?.*\Z")


def read(**texts: str) -> Card:
    return sysfs.read_card("card_3", 3, texts, ("pci0000:3a", "0000:3b:00.0"), NODE, None)


def test_a_card_is_read_from_the_drivers_and_the_kernels_texts() -> None:
    card = read(
        physical_id="5\n",
        mem_info="MemTotal: 33292288 kB\nMemFree: 12 kB\n",
        numa_node="1\n",
        current_link_speed="16.0 GT/s PCIe\n",
        current_link_width="8\n",
        max_link_speed="32.0 GT/s PCIe\n",
        max_link_width="16\n",
    )
    assert card == Card(
        name="card_3",
        number=3,
        physical_id=5,
        memory=33292288 * 1024,
        pci_path=("pci0000:3a", "0000:3b:00.0"),
        numa_node=1,
        link=Link(speed=16.0, width=8, max_speed=32.0, max_width=16),
        node=NODE,
    )


def test_a_card_without_any_attribute_is_still_a_card() -> None:
    assert read() == Card("card_3", 3, pci_path=("pci0000:3a", "0000:3b:00.0"), node=NODE)


@pytest.mark.parametrize(
    ("config", "state"),
    [
        (b"\xe0\x1e", FunctionState.ANSWERS),
        (b"\xff\xff", FunctionState.SILENT),
        (b"\xff\x1e", FunctionState.ANSWERS),
        (b"\xff", FunctionState.UNKNOWN),
        (b"", FunctionState.UNKNOWN),
        (None, FunctionState.UNKNOWN),
    ],
)
def test_a_function_that_reads_all_ones_is_silent(
    config: bytes | None, state: FunctionState
) -> None:
    assert sysfs.function_state(config) is state


def test_pcie_errors_are_counted_by_their_total() -> None:
    card = read(
        aer_dev_fatal="Undefined 1\nDLP 2\nTOTAL_ERR_FATAL 3\n",
        aer_dev_nonfatal="Undefined 1\nTOTAL_ERR_NONFATAL 1\n",
    )
    assert (card.aer_fatal, card.aer_nonfatal) == (3, 1)


@pytest.mark.parametrize(
    "text", ["", "3", "TOTAL_ERR_FATAL", "TOTAL_ERR_FATAL -1", "TOTAL_ERR_FATAL x"]
)
def test_an_unreported_error_count_is_none(text: str) -> None:
    assert read(aer_dev_fatal=text).aer_fatal is None


def test_a_negative_numa_node_is_none() -> None:
    assert read(numa_node="-1\n").numa_node is None


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "+1", "1.0", "0x1", "1_0", "1 2", "1\n2", "one", "³", "1" * 10]
)
def test_a_text_that_is_not_a_plain_number_gives_no_physical_id(text: str) -> None:
    assert read(physical_id=text).physical_id is None


@pytest.mark.parametrize("text", ["", "Unknown speed", "GT/s", "32.0", "-1 GT/s", "99999 GT/s"])
def test_a_text_that_is_not_a_speed_gives_none(text: str) -> None:
    assert read(max_link_speed=text).link.max_speed is None


def test_an_old_kernels_speed_is_read() -> None:
    assert read(current_link_speed="2.5 GT/s").link.speed == 2.5
    assert read(current_link_speed="8 GT/s PCIe").link.speed == 8.0


@pytest.mark.parametrize(
    "text",
    [
        "MemTotal: 33292288",
        "MemTotal: 33292288 kB",
        "MemTotal:\t33292288 kB\r\n",
        "  MemTotal :33292288kB  ",
        "MemFree: 1 kB\nMemTotal: 33292288 kB\nMemUsed: 2 kB",
    ],
)
def test_memory_is_read_from_mem_total_with_or_without_its_unit(text: str) -> None:
    assert sysfs.memory_bytes(text) == 33292288 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "",
        "33292288",
        "MemTotal:",
        "MemTotal: lots",
        "MemTotal: 33292288 MB",
        "MemTotal: -1 kB",
        "NotMemTotal: 1 kB",
        "memtotal: 1 kB",
        f"MemTotal: {'9' * 16}",
    ],
)
def test_any_other_text_gives_no_memory(text: str) -> None:
    assert sysfs.memory_bytes(text) is None


@pytest.mark.parametrize(
    ("name", "number"), [("card_0", 0), ("card_7", 7), ("card_10", 10), ("card_999999", 999_999)]
)
def test_the_card_number_is_the_n_of_card_n(name: str, number: int) -> None:
    assert sysfs.card_number(name) == number


@pytest.mark.parametrize(
    "name",
    ["", "card_", "card_x", "card_01", "card_-1", "card_1 ", "card_1\n", "xcard_1", "CARD_1",
     "card0", "card_١", "card_1000000", "biren-m", "version"],
)  # fmt: skip
def test_no_other_name_is_a_card(name: str) -> None:
    assert sysfs.card_number(name) is None


@given(st.text() | st.from_regex(r"\Acard_[0-9]*.?\Z"))
def test_a_card_has_one_name_only(name: str) -> None:
    number = sysfs.card_number(name)
    assert number is None or name == f"card_{number}"


@pytest.mark.parametrize("name", ["0000:3b:00.0", "00000000:ff:1f.7"])
def test_a_pci_path_goes_from_the_root_to_the_function(name: str) -> None:
    path = sysfs.pci_path(f"/sys/devices/pci0000:3a/0000:3a:00.0/{name}")
    assert path == ("pci0000:3a", "0000:3a:00.0", name)


@pytest.mark.parametrize(
    "name", ["", "biren", "pci0000:00", "0000:3B:00.0", "3b:00.0", "0000:3b:00.8", "0000:3b:00.0x"]
)
def test_a_path_without_a_pci_address_at_its_end_is_not_a_pci_path(name: str) -> None:
    assert sysfs.pci_path(f"/sys/devices/pci0000:3a/{name}") == ()


def test_a_pci_path_has_nothing_but_functions_below_its_root() -> None:
    assert sysfs.pci_path("/sys/devices/pci0000:3a/0000:3a:00.0") == ("pci0000:3a", "0000:3a:00.0")
    assert sysfs.pci_path("/sys/devices/pci0000:3a/other/0000:3b:00.0") == ()


def test_a_device_outside_the_pci_tree_has_no_pci_path() -> None:
    assert sysfs.pci_path("/sys/devices/platform/0000:3b:00.0") == ()


@pytest.mark.parametrize("name", ["libbiren-ml.so.1", "libbiren-ml.so.1.12.0"])
def test_versions_of_the_library_are_recognised_by_name(name: str) -> None:
    assert sysfs.library_name(name)


@pytest.mark.parametrize(
    "name",
    ["libbiren-ml.so", "libbiren-ml.so.", "libbiren-ml.so.1.bak", "libbiren-ml_so.1",
     "libbiren-ml.so.1.", "libother.so.1", "xlibbiren-ml.so.1"],
)  # fmt: skip
def test_other_files_are_not_versions_of_the_library(name: str) -> None:
    assert not sysfs.library_name(name)


@given(st.dictionaries(st.sampled_from(ATTRIBUTES), ANY_TEXT))
def test_no_text_raises_and_each_number_is_bounded(texts: dict[str, str]) -> None:
    card = sysfs.read_card("card_3", 3, texts, (), NODE, None)
    link = card.link
    for number in (card.physical_id, card.numa_node, link.width, link.max_width):
        assert number is None or 0 <= number < 10**9
    for speed in (link.speed, link.max_speed):
        assert speed is None or 0 <= speed < 10**4
    assert card.memory is None or 0 <= card.memory < 2**63


@given(st.integers(0, 10**9 - 1), st.sampled_from(["", "\n", " \n"]))
def test_numbers_are_read_back(number: int, end: str) -> None:
    card = read(physical_id=f"{number}{end}", mem_info=f"MemTotal: {number} kB{end}")
    assert (card.physical_id, card.memory) == (number, number * 1024)


def test_a_path_below_an_intel_vmd_starts_at_the_last_root_bridge() -> None:
    vmd = "/sys/devices/pci0000:e0/0000:e0:00.5/pci10000:e0"
    path = sysfs.pci_path(f"{vmd}/10000:e0:02.0/10000:e1:00.0")
    assert path == ("pci10000:e0", "10000:e0:02.0", "10000:e1:00.0")


@pytest.mark.parametrize(
    ("texts", "misread"),
    [
        ({"physical_id": "N/A\n"}, ("physical_id reads 'N/A'",)),
        ({"physical_id": "3", "mem_info": "?"}, ("mem_info has no line MemTotal",)),
        ({"physical_id": "3", "mem_info": "MemTotal: 7 kB"}, ()),
        ({"physical_id": "", "mem_info": ""}, ()),
        ({}, ()),
    ],
)
def test_garbage_texts_are_quoted(texts: dict[str, str], misread: tuple[str, ...]) -> None:
    card = sysfs.read_card("card_3", 3, texts, (), NODE, None)
    assert card.misread == misread


@pytest.mark.parametrize(
    ("text", "node", "misread"),
    [
        ("0\n", 0, ""),
        ("1023\n", 1023, ""),
        ("-1\n", None, ""),
        ("\n", None, ""),
        ("1024\n", None, "numa_node reads '1024'"),
        ("-2\n", None, "numa_node reads '-2'"),
        ("none\n", None, "numa_node reads 'none'"),
    ],
)
def test_a_numa_node_that_linux_cannot_have_is_quoted(
    text: str, node: int | None, misread: str
) -> None:
    card = sysfs.read_card("card_3", 3, {"numa_node": text}, (), NODE, None)
    assert (card.numa_node, card.numa_misread) == (node, misread)
