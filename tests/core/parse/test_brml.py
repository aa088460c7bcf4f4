"""Any value of the management library becomes a valid value or None, and never raises."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.parse.brml import (
    CardReading,
    CommonAncestor,
    LibraryStatus,
    P2PLink,
    Throttle,
    card_reading,
    member,
    pci_address,
    svi_split,
    text,
    throttle_reasons,
)

TEXTS = {"uuid", "pci_address", "product_name", "serial"}
NUMBERS = {field.name for field in attrs.fields(CardReading)} - TEXTS - {"number", "timed_out"}

any_bytes = st.binary(max_size=200)
any_integer = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-2, 300),
    st.sampled_from([2**31 - 1, 2**32 - 1, 2**64 - 1]),
)
anything = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(TEXTS, any_bytes),
        **dict.fromkeys(NUMBERS, any_integer),
    },
)


@given(anything)
def test_any_values_make_a_reading_with_only_possible_values(
    said: dict[str, int | bytes],
) -> None:
    reading = card_reading(7, said)
    assert reading.number == 7
    assert not reading.timed_out
    values = attrs.asdict(reading)
    for name in NUMBERS - {"throttle"}:
        assert values[name] is None or values[name] == said[name] or name.startswith("svi_")
        assert values[name] not in (-1, 2**64 - 1), "not available"
    assert reading.power != 2**32 - 1
    for celsius in ("temperature", "shutdown_temperature", "slowdown_temperature"):
        assert values[celsius] is None or 0 <= values[celsius] <= 250
    assert reading.svi_current in (None, 1, 2, 4)
    assert reading.status is None or isinstance(reading.status, LibraryStatus)


@given(any_bytes)
def test_a_text_is_one_printable_ascii_line(raw: bytes) -> None:
    found = text(raw)
    assert found is None or (found.isascii() and found.isprintable() and 0 < len(found) <= 80)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80))
def test_a_text_ends_at_the_first_zero(good: str) -> None:
    assert text(good.encode()) == good
    assert text(good.encode() + b"\0behind it") == good


def test_an_empty_text_is_none() -> None:
    assert [text(raw) for raw in (b"", b"\0", b"  \0", b"\0text")] == [None] * 4


@given(any_bytes)
def test_any_bytes_make_a_pci_address_or_none(raw: bytes) -> None:
    assert pci_address(raw) is None


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7))
def test_a_pci_address_has_the_form_of_sysfs(
    domain: int, bus: int, device: int, function: int
) -> None:
    bus_id = f"{domain:08X}:{bus:02X}:{device:02X}.{function:01X}".encode()
    assert pci_address(bus_id) == f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


def test_modes_0_and_1_both_leave_a_gpu_whole() -> None:
    assert [svi_split(mode) for mode in range(6)] == [1, 1, 2, None, 4, None]


@given(any_integer)
def test_numbers_without_a_meaning_are_none(value: int) -> None:
    for kind in (LibraryStatus, P2PLink, CommonAncestor):
        found = member(kind, value)
        assert found is None or found == value
    assert (member(P2PLink, value) is None) == (value not in (0, 1, 2))


def test_a_timeout_is_part_of_the_reading() -> None:
    assert card_reading(7, {}, timed_out=True) == CardReading(7, timed_out=True)


def test_the_bits_of_a_throttled_gpu_are_its_reasons() -> None:
    assert throttle_reasons(0) == frozenset()
    assert throttle_reasons(6) == frozenset({Throttle.THERMAL, Throttle.POWER_BRAKE})
    assert throttle_reasons(2**64 - 1) is None, "not available"
    assert throttle_reasons(-1) is None
