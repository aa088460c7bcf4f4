"""Values of Biren's management library (BRML), turned into readings. No value makes anything here raise.

Impossible values, and values that the library marks as not available (all bits set), are left out:
missing data is not a fault, and garbage must not become one.

Source of the numbers, units and forms: the library's public header, `brml.h`.
"""

import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from biren_plugin.core.parse.splits import SPLITS
from biren_plugin.records import frozen


class ReturnCode(enum.IntEnum):
    """The return codes of calls that are handled differently."""

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


class Throttle(enum.Enum):
    """Why the hardware lowers a GPU's clocks; the value is the name in metrics."""

    HARDWARE = "hardware"
    """Any of the others, or a reason that the library does not tell apart."""
    THERMAL = "thermal"
    POWER_BRAKE = "power_brake"


class P2PLink(enum.IntEnum):
    """How two cards reach each other beside PCIe."""

    NONE = 0
    INDIRECT = 1
    DIRECT = 2


class CommonAncestor(enum.IntEnum):
    """The closest common ancestor of two cards; the greater, the farther apart they are."""

    BOARD = 0
    PCIE_SWITCH = 10
    PCIE_SWITCHES = 20
    """Several switches, but no host bridge."""
    HOST_BRIDGE = 30
    NUMA_NODE = 40
    """Several host bridges of one NUMA node."""
    SYSTEM = 50


@frozen
class CardReading:
    """The library's reading of one card in one round; None for values that it did not report."""

    number: int
    """The driver's node id, the 3 in `card_3`."""
    uuid: str | None = None
    """In the library's form."""
    product_name: str | None = None
    """`Biren166M`."""
    serial: str | None = None
    """Of the product."""
    pci_address: str | None = None
    """In the form of sysfs: `0000:3b:00.0`."""
    numa_node: int | None = None
    """None also if the host has no NUMA nodes."""
    memory_total: int | None = None
    """Bytes."""
    memory_used: int | None = None
    """Bytes."""
    svi_current: int | None = None
    """The number of parts of the GPU behind the card, one of `SPLITS`."""
    svi_pending: int | None = None
    """The number of parts after its next reset, one of `SPLITS`."""
    instance: int | None = None
    """Which of the GPU's instances it is (*assumed*: the header says "instance number")."""
    status: LibraryStatus | None = None
    """The library's verdict."""
    temperature: int | None = None
    """Degrees C, of the GPU's die."""
    shutdown_temperature: int | None = None
    """Degrees C at which the GPU shuts itself down."""
    slowdown_temperature: int | None = None
    """Degrees C at which the GPU begins to run slower."""
    ecc_corrected: int | None = None
    """Corrected memory errors since the driver was loaded."""
    ecc_uncorrected: int | None = None
    """Uncorrected memory errors since the driver was loaded."""
    power: int | None = None
    """Milliwatts."""
    throttle: frozenset[Throttle] | None = None
    """Why its clocks are lowered now; empty: they are not."""
    links: int | None = None
    """Ports for fast links to other GPUs, connected or not."""
    links_up: int | None = None
    """Those of them that are up."""
    gpu_utilization: int | None = None
    """Percent of the last sample period."""
    memory_utilization: int | None = None
    """Percent of the last sample period in which memory was read or written."""
    timed_out: bool = False
    """Whether one of the calls timed out in the library itself."""


@frozen
class KnownCard:
    """A card that the library lists."""

    index: int
    """The library's number of the physical GPU; may differ from the `physical_id` of sysfs."""
    split: int | None = None
    """The number of parts of that GPU now, one of `SPLITS`; None if unknown."""


@frozen
class LibraryFacts:
    """Which library this is."""

    path: str
    """The path it was loaded from; a bare file name if the loader found it."""
    driver_version: str | None = None
    """`1.12.0`."""
    library_version: str | None = None
    """Its own."""
    lacking: tuple[str, ...] = ()
    """Functions that this package uses and an older library does not have."""


MAX_LINKS: Final = 32
"""More ports than a GPU has: a number beyond is garbage."""
_MAX_TEXT: Final = 80
"""Bytes: the size of the library's longest strings, the final 0 included."""
_BUS_ID: Final = re.compile(r"([0-9A-Fa-f]{8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])")
_SPLITS: Final = {0: 1, **{parts: parts for parts in SPLITS}}
_UINT_MAX: Final = 2**32 - 1
_ULONGLONG_MAX: Final = 2**64 - 1


def text(raw: bytes) -> str | None:
    """Return a C string, terminated or not, as one printable ASCII line; None if it is empty."""
    ended = raw[:_MAX_TEXT].partition(b"\0")[0]
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in ended).strip() or None


def pci_address(bus_id: bytes) -> str | None:
    """Return `0000:3b:00.0` for the library's `0000003B:3B:00.0`; None for any other form."""
    match = _BUS_ID.fullmatch(text(bus_id) or "")
    return f"{int(match[1], 16):04x}:{match[2].lower()}" if match else None


def believable_node_id(value: int) -> bool:
    """Return whether a card can have that number."""
    return value != _UINT_MAX


def svi_split(mode: int) -> int | None:
    """Return the number of parts in an SVI mode: 0 and 1 both leave the GPU whole."""
    return _SPLITS.get(mode)


_Member = TypeVar("_Member", bound=enum.IntEnum)


def member(kind: type[_Member], value: int) -> _Member | None:
    """Return the member with that number, None if there is none."""
    return kind(value) if value in kind._value2member_map_ else None


def _status(value: int) -> LibraryStatus | None:
    return member(LibraryStatus, value)


def _within(believable: range) -> Callable[[int], int | None]:
    return lambda value: value if value in believable else None


_THROTTLE_BITS: Final = {1: Throttle.HARDWARE, 2: Throttle.THERMAL, 4: Throttle.POWER_BRAKE}


def throttle_reasons(bits: int) -> frozenset[Throttle] | None:
    """Return the reasons in the library's bit mask; None for one that is not available."""
    if bits == _ULONGLONG_MAX or bits < 0:
        return None
    return frozenset(reason for bit, reason in _THROTTLE_BITS.items() if bits & bit)


_RULES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "uuid": text,
    "product_name": text,
    "serial": text,
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
    "throttle": throttle_reasons,
    "links": _within(range(1, MAX_LINKS + 1)),
    "links_up": _within(range(MAX_LINKS + 1)),
    "gpu_utilization": _within(range(101)),
    "memory_utilization": _within(range(101)),
}
"""By field of `CardReading`: turns the library's integer or bytes into a plausible value, or None."""


def card_reading(
    number: int, reported: Mapping[str, int | bytes], *, timed_out: bool = False
) -> CardReading:
    """Return the plausible values among the `reported` ones, which are by field of `CardReading`."""
    plausible = {field: _RULES[field](value) for field, value in reported.items()}
    return CardReading(number, timed_out=timed_out, **plausible)
