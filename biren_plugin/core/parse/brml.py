"""What Biren's management library (BRML) says, as words. Whatever it says, nothing here raises.

What cannot be true of a card, and what the library marks as not available (all bits set), is
left out: missing data is no fault, and garbage must not become one.

Source of the numbers, units and forms: the library's public header, `brml.h`.
"""

import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs


class ReturnCode(enum.IntEnum):
    """What a call returns, as far as it makes a difference here."""

    SUCCESS = 0
    NOT_SUPPORTED = 3
    DRIVER_NOT_LOADED = 7
    TIMEOUT = 8
    UNKNOWN = 0xFF


class LibraryStatus(enum.IntEnum):
    """The library's own verdict on a card."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    """A critical warning."""
    ERROR = 3


class P2PLink(enum.IntEnum):
    """How two cards reach each other beside PCIe."""

    NONE = 0
    INDIRECT = 1
    DIRECT = 2


class CommonAncestor(enum.IntEnum):
    """Where the ways to two cards part; the greater, the farther apart they are."""

    BOARD = 0
    PCIE_SWITCH = 10
    PCIE_SWITCHES = 20
    """Several switches, but no host bridge."""
    HOST_BRIDGE = 30
    NUMA_NODE = 40
    """Several host bridges of one NUMA node."""
    SYSTEM = 50


@attrs.frozen
class CardReading:
    """What the library said of one card in one round; None where it did not say."""

    number: int
    """The driver's node id, the 3 in `card_3`."""
    uuid: str | None = None
    """As the library writes it."""
    pci_address: str | None = None
    """As sysfs writes it: `0000:3b:00.0`."""
    numa_node: int | None = None
    """None also where the host has none."""
    memory_total: int | None = None
    """Bytes."""
    memory_used: int | None = None
    """Bytes."""
    svi_current: int | None = None
    """Into how many the GPU behind the card is split: 1, 2 or 4."""
    svi_pending: int | None = None
    """Into how many it will be after its next reset: 1, 2 or 4."""
    instance: int | None = None
    """Which of the GPU's instances it is (*assumed*: the header says "instance number")."""
    status: LibraryStatus | None = None
    """The library's verdict."""
    temperature: int | None = None
    """Of the GPU's die, degrees C."""
    shutdown_temperature: int | None = None
    """Degrees C at which the GPU shuts itself down."""
    slowdown_temperature: int | None = None
    """Degrees C at which the GPU begins to run slower."""
    ecc_corrected: int | None = None
    """Memory errors that were corrected since the driver was loaded."""
    ecc_uncorrected: int | None = None
    """Memory errors that were not, since the driver was loaded."""
    power: int | None = None
    """Milliwatts."""
    gpu_utilization: int | None = None
    """Percent of the last sample period."""
    memory_utilization: int | None = None
    """Percent of the last sample period in which memory was read or written."""
    timed_out: bool = False
    """Whether the library itself gave up waiting for the card in one of the calls."""


@attrs.frozen
class KnownCard:
    """A card that the library lists."""

    index: int
    """The library's number of the physical GPU; need not be the `physical_id` of sysfs."""
    split: int | None = None
    """Into how many that GPU is split now: 1, 2 or 4; None if the library does not say."""


@attrs.frozen
class LibraryFacts:
    """Which library this is."""

    path: str
    """Where it was loaded from; a mere file name if the loader found it."""
    driver_version: str | None = None
    """`1.12.0`."""
    library_version: str | None = None
    """Its own."""
    lacking: tuple[str, ...] = ()
    """Functions that we know and an older library has not."""


_MAX_TEXT: Final = 80
"""Bytes: the size of the library's longest strings, the final 0 included."""
_BUS_ID: Final = re.compile(r"([0-9A-Fa-f]{8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])")
_SPLITS: Final = {0: 1, 1: 1, 2: 2, 4: 4}
_UINT_MAX: Final = 2**32 - 1
_ULONGLONG_MAX: Final = 2**64 - 1


def text(raw: bytes) -> str | None:
    """A C string, with or without an end, in one printable ASCII line; None if it is empty."""
    ended = raw[:_MAX_TEXT].partition(b"\0")[0]
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in ended).strip() or None


def pci_address(bus_id: bytes) -> str | None:
    """`0000:3b:00.0` of the library's `0000003B:3B:00.0`; None if it is no such thing."""
    match = _BUS_ID.fullmatch(text(bus_id) or "")
    return f"{int(match[1], 16):04x}:{match[2].lower()}" if match else None


def believable_node_id(value: int) -> bool:
    """Whether a card can have that number."""
    return value != _UINT_MAX


def svi_split(mode: int) -> int | None:
    """Into how many an SVI mode splits a GPU: 0 and 1 both leave it whole."""
    return _SPLITS.get(mode)


_Member = TypeVar("_Member", bound=enum.IntEnum)


def member(kind: type[_Member], value: int) -> _Member | None:
    """The member with that number, None if there is none."""
    return kind(value) if value in kind._value2member_map_ else None


def _status(value: int) -> LibraryStatus | None:
    return member(LibraryStatus, value)


def _within(believable: range) -> Callable[[int], int | None]:
    return lambda value: value if value in believable else None


_RULES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "uuid": text,
    "pci_address": pci_address,
    "numa_node": _within(range(1024)),  # Linux has no more
    "memory_total": _within(range(1, _ULONGLONG_MAX)),
    "memory_used": _within(range(_ULONGLONG_MAX)),
    "svi_current": svi_split,
    "svi_pending": svi_split,
    "instance": _within(range(_UINT_MAX)),
    "status": _status,
    "temperature": _within(range(251)),
    "shutdown_temperature": _within(range(1, 251)),
    "slowdown_temperature": _within(range(1, 251)),
    "ecc_corrected": _within(range(_ULONGLONG_MAX)),
    "ecc_uncorrected": _within(range(_ULONGLONG_MAX)),
    "power": _within(range(_UINT_MAX)),
    "gpu_utilization": _within(range(101)),
    "memory_utilization": _within(range(101)),
}
"""For each field of `CardReading`: from the library's integer or bytes to what is believed of it."""


def card_reading(
    number: int, said: Mapping[str, int | bytes], *, timed_out: bool = False
) -> CardReading:
    """What is believed of what the library said, by field of `CardReading`."""
    believed = {field: _RULES[field](value) for field, value in said.items()}
    return CardReading(number, timed_out=timed_out, **believed)
