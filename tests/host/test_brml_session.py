"""The binding says what the library says: through a real shared library, function by function."""

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
)
from biren_plugin.errors import LibraryCallFailed, LibraryMissing, LibraryUnusable
from biren_plugin.host.brml_session import Brml, find_library
from tests.brml import WELL, BrmlState, without_end

EVERYTHING = CardReading(
    number=3,
    uuid="GPU-5f2b6a1c-0001",
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
    gpu_utilization=17,
    memory_utilization=4,
)
FIELDS_OF = {
    "brmlDeviceGetHealthStatus": {"status"},
    "brmlDeviceGetSviMode": {"svi_current", "svi_pending"},
    "brmlDeviceGetInstanceNumber": {"instance"},
    "brmlDeviceGetUUID": {"uuid"},
    "brmlDeviceGetPciInfo": {"pci_address"},
    "brmlDeviceGetNumaNode": {"numa_node"},
    "brmlDeviceGetMemoryInfo": {"memory_total", "memory_used"},
    "brmlDeviceGetTemperature": {"temperature"},
    "brmlDeviceGetTemperatureThreshold": {"shutdown_temperature", "slowdown_temperature"},
    "brmlDeviceGetTotalEccErrors": {"ecc_corrected", "ecc_uncorrected"},
    "brmlDeviceGetPowerUsage": {"power"},
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
    """One that lacks several functions, open."""
    library = Brml(str(old_brml_library))
    library.init()
    return library


def without(*fields: str) -> CardReading:
    """Everything but these fields."""
    nothing: dict[str, Any] = dict.fromkeys(fields)
    return attrs.evolve(EVERYTHING, **nothing)


def test_card_says_everything(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    assert library.read_card(3) == EVERYTHING


def test_values_are_read_anew_each_time(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    library.read_card(3)
    brml.set_card(3, temperature=97, status=2)
    reading = library.read_card(3)
    assert (reading.temperature, reading.status) == (97, LibraryStatus.CRITICAL)


def test_card_that_supports_nothing_says_nothing(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3)
    brml.set_gpu(0, mode=None)
    assert library.read_card(3) == CardReading(3)


@pytest.mark.parametrize("code", [1, ReturnCode.NOT_SUPPORTED, 9, ReturnCode.UNKNOWN, -1])
@pytest.mark.parametrize("function", FIELDS_OF)
def test_call_that_fails_costs_what_it_would_have_said(
    library: Brml, brml: BrmlState, function: str, code: int
) -> None:
    brml.add_gpu(3, **WELL)
    brml.fail(function, code)
    assert library.read_card(3) == without(*FIELDS_OF[function])


@pytest.mark.parametrize("function", FIELDS_OF)
def test_call_that_timed_out_is_told_apart(library: Brml, brml: BrmlState, function: str) -> None:
    brml.add_gpu(3, **WELL)
    brml.fail(function, ReturnCode.TIMEOUT)
    assert library.read_card(3) == attrs.evolve(without(*FIELDS_OF[function]), timed_out=True)


def test_failure_of_one_card_is_not_anothers(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL)
    brml.add_gpu(4, **WELL)
    brml.fail("brmlDeviceGetHealthStatus", ReturnCode.TIMEOUT, 4)
    assert library.read_card(3) == EVERYTHING
    assert library.read_card(4).timed_out


def test_texts_without_an_end_stop_where_their_buffers_do(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, **WELL | {"uuid": without_end("u"), "bus_id": without_end("0")})
    brml.set_system(driver=without_end("1"), library=without_end("2"))
    reading = library.read_card(3)
    assert (reading.uuid, reading.pci_address) == ("u" * 80, None)
    assert library.facts().driver_version == "1" * 80
    assert library.facts().library_version == "2" * 80


def test_longest_bus_id_is_read_whole(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, bus_id="0000FFFF:FF:1F.7")
    assert library.read_card(3).pci_address == "ffff:ff:1f.7"


def test_garbage_in_texts_is_one_printable_line(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, uuid="GPU\x1b[2J\xff")
    assert library.read_card(3).uuid == "GPU?[2J?"


def test_largest_numbers_arrive_whole(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(3, memory=f"{2**63} 1 {2**63 - 1}", ecc_uncorrected=2**64 - 2, power=2**32 - 2)
    reading = library.read_card(3)
    assert (reading.memory_total, reading.memory_used) == (2**63, 2**63 - 1)
    assert (reading.ecc_uncorrected, reading.power) == (2**64 - 2, 2**32 - 2)


def test_values_that_cannot_be_true_are_left_out(library: Brml, brml: BrmlState) -> None:
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


def test_instance_is_asked_for_itself(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(4, 7, **WELL)
    brml.set_card(7, instance=1, temperature=50)
    assert library.read_card(4).temperature == 41
    reading = library.read_card(7)
    assert (reading.instance, reading.temperature, reading.svi_current) == (1, 50, 2)


def test_new_split_is_seen_without_opening_the_library_again(
    library: Brml, brml: BrmlState
) -> None:
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
def test_gpu_that_does_not_answer_is_missing_from_the_list(
    library: Brml, brml: BrmlState, function: str
) -> None:
    brml.add_gpu(0)
    brml.add_gpu(1, 2)
    # The handle by index is asked for with the GPU's index, the others with the card's node id.
    brml.fail(function, ReturnCode.UNKNOWN, 1)
    assert 0 in library.known_cards()
    assert 1 not in library.known_cards()


def test_gpu_whose_split_is_not_told_is_listed_as_one_card(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(5)
    brml.fail("brmlDeviceGetSviMode", ReturnCode.NOT_SUPPORTED)
    assert library.known_cards() == {5: KnownCard(0, None)}


def test_handle_that_leads_nowhere_is_not_followed(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0, **WELL)
    brml.set("no_handles", 1)
    assert library.known_cards() == {}
    with pytest.raises(LibraryCallFailed, match="no handle"):
        library.read_card(0)


def test_card_whose_number_is_not_available_is_left_out(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.add_gpu(2**32 - 1)
    assert set(library.known_cards()) == {0}


def test_count_that_is_garbage_costs_256_questions(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.set("gpus", 2**32 - 1)
    assert library.known_cards()[0] == KnownCard(0, 1)


def test_count_that_fails_is_an_error(library: Brml, brml: BrmlState) -> None:
    brml.fail("brmlDeviceGetCount", ReturnCode.DRIVER_NOT_LOADED)
    with pytest.raises(LibraryCallFailed) as caught:
        library.known_cards()
    assert caught.value.code == ReturnCode.DRIVER_NOT_LOADED


def test_card_that_the_library_does_not_know_is_an_error_that_says_which(
    library: Brml, brml: BrmlState
) -> None:
    brml.add_gpu(0)
    brml.set("error.2", "invalid argument")
    said = "brmlDeviceGetHandleByNodeId(9): invalid argument (code 2); see what `brsmi` says"
    with pytest.raises(LibraryCallFailed, match=re.escape(said)):
        library.read_card(9)


def test_code_without_words_is_said_as_a_number(library: Brml, brml: BrmlState) -> None:
    with pytest.raises(LibraryCallFailed, match=r": code 2; see"):
        library.read_card(9)


def test_words_for_a_code_are_read_to_their_end_and_no_further(
    library: Brml, brml: BrmlState
) -> None:
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


def test_links_that_are_not_told_are_none(library: Brml, brml: BrmlState) -> None:
    brml.add_gpu(0)
    brml.add_gpu(1)
    assert (library.link(0, 1), library.ancestor(0, 1)) == (None, None)
    brml.set_pair(0, 1, p2p="7 1", ancestor=11)
    assert (library.link(0, 1), library.ancestor(0, 1)) == (None, None), "no such numbers"


def test_facts_name_the_versions_and_where_it_lies(
    library: Brml, brml: BrmlState, brml_library: Path
) -> None:
    brml.set_system(driver="1.12.0", library="1.9")
    facts = library.facts()
    assert (facts.driver_version, facts.library_version) == ("1.12.0", "1.9")
    assert (facts.path, facts.lacking) == (str(brml_library), ())


def test_versions_that_are_not_told_are_none(library: Brml, brml: BrmlState) -> None:
    assert (library.facts().driver_version, library.facts().library_version) == (None, None)


def test_library_that_does_not_open_says_why(brml_library: Path, brml: BrmlState) -> None:
    brml.fail("brmlInit", ReturnCode.DRIVER_NOT_LOADED)
    brml.set("error.7", "driver not loaded")
    with pytest.raises(LibraryCallFailed, match=r"brmlInit\(\): driver not loaded \(code 7\)"):
        Brml(str(brml_library)).init()


def test_shutdown_that_fails_is_nobodys_trouble(library: Brml, brml: BrmlState) -> None:
    brml.fail("brmlShutdown", ReturnCode.UNKNOWN)
    library.shutdown()


def test_old_library_says_what_it_can(old_library: Brml, brml: BrmlState) -> None:
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
def test_file_that_is_no_library_cannot_be_used(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "libbiren-ml.so.1"
    broken.write_bytes(content)
    with pytest.raises(LibraryUnusable, match=f"cannot load {re.escape(str(broken))}: ") as caught:
        Brml(str(broken))
    assert caught.type is LibraryUnusable


def test_another_library_cannot_be_used() -> None:
    with pytest.raises(LibraryUnusable, match=r"cannot use libc\.so\.6: it has no function brmlI"):
        Brml("libc.so.6")


def test_library_that_the_loader_does_not_find_is_missing() -> None:
    with pytest.raises(LibraryMissing):
        Brml("libbiren-ml.so.1-of-no-node")


def test_library_is_sought_in_the_vendors_folders_through_the_hosts_links(tmp_path: Path) -> None:
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


def test_on_the_host_itself_the_loader_is_asked_first() -> None:
    assert find_library(Path("/"))[0] == "libbiren-ml.so.1"
