"""The binding returns the library's values: through a real shared library, function by function."""

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from biren_plugin.core.parse.brml import (
    CardReading,
    CommonAncestor,
    KnownCard,
    LibraryStatus,
    P2PLink,
    ReturnCode,
    Throttle,
)
from biren_plugin.errors import LibraryCallFailed, LibraryMissing, LibraryUnusable
from biren_plugin.host.brml_session import Brml, find_library
from tests.brml import WELL, BrmlState, without_end

EVERYTHING = CardReading(
    number=3,
    uuid="GPU-5f2b6a1c-0001",
    product_name="Biren166M",
    serial="SN-0042",
    pci_address="003b:5e:00.0",
    numa_node=1,
    memory_total=68_182_605_824,
    memory_used=100_000_000,
    svi_current=1,
    svi_pending=1,
    instance=0,
    status=LibraryStatus.OK,
    temperature=41,
    shutdown_temperature=95,
    slowdown_temperature=85,
    ecc_corrected=3,
    ecc_uncorrected=0,
    power=120_500,
    throttle=frozenset({Throttle.THERMAL, Throttle.POWER_BRAKE}),
    links=4,
    links_up=3,
    gpu_utilization=17,
    memory_utilization=4,
)
FIELDS_OF = {
    "brmlDeviceGetHealthStatus": {"status"},
    "brmlDeviceGetSviMode": {"svi_current", "svi_pending"},
    "brmlDeviceGetInstanceNumber": {"instance"},
    "brmlDeviceGetUUID": {"uuid"},
    "brmlDeviceGetGpuInfo": {"product_name", "serial"},
    "brmlDeviceGetPciInfo": {"pci_address"},
    "brmlDeviceGetNumaNode": {"numa_node"},
    "brmlDeviceGetMemoryInfo": {"memory_total", "memory_used"},
    "brmlDeviceGetTemperature": {"temperature"},
    "brmlDeviceGetTemperatureThreshold": {"shutdown_temperature", "slowdown_temperature"},
    "brmlDeviceGetTotalEccErrors": {"ecc_corrected", "ecc_uncorrected"},
    "brmlDeviceGetPowerUsage": {"power"},
    "brmlDeviceGetCurrentClocksThrottleReasons": {"throttle"},
    "brmlDeviceGetUtilizationRates": {"gpu_utilization", "memory_utilization"},
}


@pytest.fixture
def library(brml_library: Path, brml: BrmlState) -> Brml:
    """The library, open."""
    library = Brml(str(brml_library))
    library.init()
    return library


@pytest.fixture
def old_library(old_brml_library: Path, brml: BrmlState) -> Brml:
    """A library that lacks several functions, open."""
    library = Brml(str(old_brml_library))
    library.init()
    return library


def without(*fields: str) -> CardReading:
    """Return everything but these fields."""
    nothing: dict[str, Any] = dict.fromkeys(fields)
    return attrs.evolve(EVERYTHING, **nothing)


def test_a_card_reports_everything(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    assert library.read_card(3) == EVERYTHING


def test_values_are_read_again_each_time(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    library.read_card(3)
    brml.set_card(3, temperature=97, status=2)
    reading = library.read_card(3)
    assert (reading.temperature, reading.status) == (97, LibraryStatus.CRITICAL)


def test_a_card_that_supports_nothing_has_no_values(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3)
    brml.set_gpu(0, mode=None)
    assert library.read_card(3) == CardReading(3)


@pytest.mark.parametrize("code", [1, ReturnCode.NOT_SUPPORTED, 9, ReturnCode.UNKNOWN, -1])
@pytest.mark.parametrize("function", FIELDS_OF)
def test_a_failed_call_loses_only_its_own_values(
    library: Brml, brml: BrmlState, function: str, code: int
) -> None:
    brml.add_gpu(3, **WELL)
    brml.fail(function, code)
    assert library.read_card(3) == without(*FIELDS_OF[function])


@pytest.mark.parametrize("function", FIELDS_OF)
def test_a_call_that_timed_out_is_marked(library: Brml, brml: BrmlState, function: str) -> None:
    brml.add_gpu(3, **WELL)
    brml.fail(function, ReturnCode.TIMEOUT)
    assert library.read_card(3) == attrs.evolve(without(*FIELDS_OF[function]), timed_out=True)


def test_one_cards_failure_does_not_affect_another(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    brml.add_gpu(4, **WELL)
    brml.fail("brmlDeviceGetHealthStatus", ReturnCode.TIMEOUT, 4)
    assert library.read_card(3) == EVERYTHING
    assert library.read_card(4).timed_out


def test_an_unterminated_text_ends_with_its_buffer(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL | {"uuid": without_end("u"), "bus_id": without_end("0")})
    brml.set_system(driver=without_end("1"), library=without_end("2"))
    reading = library.read_card(3)
    assert (reading.uuid, reading.pci_address) == ("u" * 80, None)
    assert library.facts().driver_version == "1" * 80
    assert library.facts().library_version == "2" * 80


def test_the_longest_bus_id_is_read_whole(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, bus_id="0000FFFF:FF:1F.7")
    assert library.read_card(3).pci_address == "ffff:ff:1f.7"


def test_garbage_text_becomes_one_printable_line(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, uuid="GPU\x1b[2J\xff")
    assert library.read_card(3).uuid == "GPU?[2J?"


def test_the_largest_numbers_are_read_whole(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, memory=f"{2**63} 1 {2**63 - 1}", ecc_uncorrected=2**64 - 2, power=2**32 - 2)
    reading = library.read_card(3)
    assert (reading.memory_total, reading.memory_used) == (2**63, 2**63 - 1)
    assert (reading.ecc_uncorrected, reading.power) == (2**64 - 2, 2**32 - 2)


def test_impossible_values_are_left_out(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL | {"temperature": 2**32 - 1, "numa_node": -1, "status": -7})
    brml.set_gpu(0, mode=3, pending=77)
    fields = ("temperature", "numa_node", "status", "svi_current", "svi_pending")
    assert library.read_card(3) == without(*fields)


def test_cards_are_listed_with_their_gpu_and_its_split(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.add_gpu(4, 7)
    brml.add_gpu(1, 2, 3, 9)
    assert library.known_cards() == {
        0: KnownCard(0, 1),
        4: KnownCard(1, 2),
        7: KnownCard(1, 2),
        **{number: KnownCard(2, 4) for number in (1, 2, 3, 9)},
    }


def test_an_instance_is_read_through_its_own_handle(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(4, 7, **WELL)
    brml.set_card(7, instance=1, temperature=50)
    assert library.read_card(4).temperature == 41
    reading = library.read_card(7)
    assert (reading.instance, reading.temperature, reading.svi_current) == (1, 50, 2)


def test_a_new_split_is_seen_without_reopening_the_library(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    assert set(library.known_cards()) == {0}
    brml.split(0, 1, 2)
    assert set(library.known_cards()) == {1, 2}
    brml.set_gpu(0, pending=4)
    assert library.read_card(1).svi_pending == 4
    with pytest.raises(LibraryCallFailed):
        library.read_card(0)


@pytest.mark.parametrize(
    "function",
    ["brmlDeviceGetHandleByIndex", "brmlDeviceGetNodeId", "brmlDeviceGetGpuInstanceById"],
)
def test_a_gpu_that_does_not_answer_is_missing_from_the_list(
    library: Brml, brml: BrmlState, function: str
) -> None:
    brml.add_gpu(0)
    brml.add_gpu(1, 2)
    # The handle by index takes the GPU's index, the other functions take the card's node id.
    brml.fail(function, ReturnCode.UNKNOWN, 1)
    assert 0 in library.known_cards()
    assert 1 not in library.known_cards()


def test_a_gpu_with_unknown_split_is_listed_as_one_card(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(5)
    brml.fail("brmlDeviceGetSviMode", ReturnCode.NOT_SUPPORTED)
    assert library.known_cards() == {5: KnownCard(0, None)}


def test_a_null_handle_is_not_used(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0, **WELL)
    brml.set("no_handles", 1)
    assert library.known_cards() == {}
    with pytest.raises(LibraryCallFailed, match="no handle"):
        library.read_card(0)


def test_a_card_without_a_number_is_left_out(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.add_gpu(2**32 - 1)
    assert set(library.known_cards()) == {0}


def test_a_garbage_count_costs_at_most_256_calls(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.set("gpus", 2**32 - 1)
    assert library.known_cards()[0] == KnownCard(0, 1)


def test_a_failed_count_is_an_error(library: Brml, brml: BrmlState) -> None:
    brml.fail("brmlDeviceGetCount", ReturnCode.DRIVER_NOT_LOADED)
    with pytest.raises(LibraryCallFailed) as caught:
        library.known_cards()
    assert caught.value.code == ReturnCode.DRIVER_NOT_LOADED


def test_the_error_names_a_card_that_the_library_does_not_know(
    library: Brml, brml: BrmlState
) -> None:
    brml.add_gpu(0)
    brml.set("error.2", "invalid argument")
    said = (
        "brmlDeviceGetHandleByNodeId(9): invalid argument (code 2); see `brsmi gpu query -d health`"
    )
    with pytest.raises(LibraryCallFailed, match=re.escape(said)):
        library.read_card(9)


def test_a_code_without_a_text_is_shown_as_a_number(library: Brml, brml: BrmlState) -> None:
    with pytest.raises(LibraryCallFailed, match=r": code 2; see"):
        library.read_card(9)


def test_the_text_of_a_code_is_not_read_past_its_end(library: Brml, brml: BrmlState) -> None:
    """The byte after the stand-in's texts cannot be read: reading it would end this process."""
    brml.set("error.2", without_end("w"))
    with pytest.raises(LibraryCallFailed, match=f": {'w' * 80} "):
        library.read_card(9)


def test_links_between_cards(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.add_gpu(1, 2)
    brml.set_pair(0, 1, p2p="2 3", ancestor=10)
    brml.set_pair(1, 2, p2p="0 0", ancestor=0)
    assert library.link(0, 1) == library.link(1, 0) == P2PLink.DIRECT
    assert library.ancestor(0, 1) == library.ancestor(1, 0) == CommonAncestor.PCIE_SWITCH
    assert (library.link(2, 1), library.ancestor(2, 1)) == (P2PLink.NONE, CommonAncestor.BOARD)


def test_unreported_links_are_none(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.add_gpu(1)
    assert (library.link(0, 1), library.ancestor(0, 1)) == (None, None)
    brml.set_pair(0, 1, p2p="7 1", ancestor=11)
    assert (library.link(0, 1), library.ancestor(0, 1)) == (None, None), "no such numbers"


def test_facts_have_the_librarys_versions_and_path(
    library: Brml, brml: BrmlState, brml_library: Path
) -> None:
    brml.set_system(driver="1.12.0", library="1.9")
    facts = library.facts()
    assert (facts.driver_version, facts.library_version) == ("1.12.0", "1.9")
    assert (facts.path, facts.lacking) == (str(brml_library), ())


def test_unreported_versions_are_none(library: Brml, brml: BrmlState) -> None:
    assert (library.facts().driver_version, library.facts().library_version) == (None, None)


def test_the_error_explains_why_the_library_does_not_open(
    brml_library: Path, brml: BrmlState
) -> None:
    brml.fail("brmlInit", ReturnCode.DRIVER_NOT_LOADED)
    brml.set("error.7", "driver not loaded")
    with pytest.raises(LibraryCallFailed, match=r"brmlInit\(\): driver not loaded \(code 7\)"):
        Brml(str(brml_library)).init()


def test_a_failed_shutdown_is_ignored(library: Brml, brml: BrmlState) -> None:
    brml.fail("brmlShutdown", ReturnCode.UNKNOWN)
    library.shutdown()


def test_an_old_library_reports_what_it_can(old_library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    brml.add_gpu(4)
    brml.set_pair(3, 4, p2p="2 1", ancestor=10)
    assert old_library.read_card(3) == without("status", "instance")
    assert (old_library.link(3, 4), old_library.ancestor(3, 4)) == (None, None)
    assert set(old_library.facts().lacking) == {
        "brmlDeviceGetGpuInstanceById",
        "brmlDeviceGetHealthStatus",
        "brmlDeviceGetInstanceNumber",
        "brmlDeviceGetP2PStatus_v2",
        "brmlDeviceGetTopologyCommonAncestor",
    }
    with pytest.raises(LibraryCallFailed, match="code 2"):
        old_library.read_card(9)


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(100)])
def test_a_file_that_is_not_a_library_is_unusable(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "libbiren-ml.so.1"
    broken.write_bytes(content)
    with pytest.raises(LibraryUnusable, match=f"cannot load {re.escape(str(broken))}: ") as caught:
        Brml(str(broken))
    assert caught.type is LibraryUnusable


def test_an_empty_library_is_reported_as_empty(tmp_path: Path) -> None:
    empty = tmp_path / "libbiren-ml.so.1"
    empty.touch()
    with pytest.raises(LibraryUnusable, match=r"it is empty, as on a simulated host; on a real"):
        Brml(str(empty))


def test_a_different_library_is_unusable() -> None:
    with pytest.raises(LibraryUnusable, match=r"cannot use libc\.so\.6: it has no function brmlI"):
        Brml("libc.so.6")


def test_a_library_that_the_loader_does_not_find_is_missing() -> None:
    with pytest.raises(LibraryMissing):
        Brml("libbiren-ml.so.1-of-no-node")


def test_the_library_is_found_in_the_vendors_directories_through_the_hosts_links(
    tmp_path: Path,
) -> None:
    assert find_library(tmp_path) == []
    real = tmp_path / "usr/local/birensupa/driver/biren-smi/lib/libbiren-ml.so.1"
    other = tmp_path / "opt/birentech/lib/libbiren-ml.so.1"
    for file in (real, other):
        file.parent.mkdir(parents=True)
        file.touch()
    link = tmp_path / "usr/lib/libbiren-ml.so.1"
    link.parent.mkdir()
    link.symlink_to("/usr/local/birensupa/driver/biren-smi/lib/libbiren-ml.so.1")
    assert find_library(tmp_path) == [str(real), str(other)]


def test_on_the_host_itself_the_loaders_choice_comes_first() -> None:
    assert find_library(Path("/"))[0] == "libbiren-ml.so.1"


@pytest.mark.parametrize("function", ["brmlDeviceGetBrLinkNumber", "brmlDeviceGetBrLinkState"])
@pytest.mark.parametrize("code", [ReturnCode.NOT_SUPPORTED, ReturnCode.TIMEOUT])
def test_unknown_links_cost_only_the_links(
    library: Brml, brml: BrmlState, function: str, code: ReturnCode
) -> None:
    brml.add_gpu(3, **WELL)
    brml.fail(function, code)
    assert library.read_card(3) == without("links", "links_up")


@pytest.mark.parametrize("number", [0, 33, 2**32 - 1])
def test_an_impossible_number_of_links_is_left_out(
    library: Brml, brml: BrmlState, number: int
) -> None:
    brml.add_gpu(3, **WELL | {"links": number})
    assert library.read_card(3) == without("links", "links_up")
