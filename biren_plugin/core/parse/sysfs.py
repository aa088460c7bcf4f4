"""Turns the text of sysfs attributes into cards. No text makes anything here raise.

Source of the attributes' names and forms: the driver's class directory `/sys/class/biren`, and the
kernel's Documentation/ABI/testing/sysfs-bus-pci.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card, FunctionState, Link, NodeState
from biren_plugin.core.parse.pci_addresses import VFIO_FOLDER, pci_number

_NUMA: Final = "numa_node"
_NUMA_NODES: Final = range(1024)
"""Linux has no more: CONFIG_NODES_SHIFT is 10 at most."""
CHANGING_ATTRIBUTES: Final = (
    vendor.GPU_ATTRIBUTE,
    vendor.MEMORY_ATTRIBUTE,
    "current_link_width",
    "aer_dev_fatal",
    "aer_dev_nonfatal",
)
"""Read at each scan of the whole host: a new split can leave every name unchanged."""
FIXED_ATTRIBUTES: Final = (
    "device",
    _NUMA,
    "current_link_speed",
    "max_link_speed",
    "max_link_width",
)
"""Read once for each card."""
_WAKING_ATTRIBUTES: Final = frozenset({"current_link_speed", "current_link_width"})
"""Attributes whose read asks the device itself, like `config`."""
RUNTIME_STATUS: Final = "power/runtime_status"
VENDOR_ID_BYTES: Final = 2
"""The beginning of `config`, whose read asks the device itself."""

_MAX_QUOTED: Final = 40
_CARD_NAME: Final = re.compile(vendor.CARD_PREFIX + "(0|[1-9][0-9]{0,5})")
_VFIO_GROUP: Final = re.compile(VFIO_FOLDER + "/(0|[1-9][0-9]{0,5})")
_PCI_ROOT: Final = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
_MEM_TOTAL: Final = re.compile(
    rf"^[ \t]*{vendor.MEMORY_TOTAL}[ \t]*:[ \t]*([0-9]{{1,15}})(?:[ \t]*kB)?[ \t\r]*$", re.MULTILINE
)
_AER_TOTAL: Final = re.compile(r"^TOTAL_ERR_(?:FATAL|NONFATAL) ([0-9]{1,18})$", re.MULTILINE)
_PCI_ID: Final = re.compile(r"0x[0-9a-f]{4}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_SPEED: Final = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)\s*GT/s")
_LIBRARY: Final = re.compile(re.escape(vendor.LIBRARY) + r"\.[0-9]+(?:\.[0-9]+)*")


def card_number(name: str) -> int | None:
    """Return the N of `card_N`, None for anything else."""
    match = _CARD_NAME.fullmatch(name)
    return int(match[1]) if match else None


def number_of(device_id: str) -> int | None:
    """Return the 3 of `card_3` and of `/dev/vfio/3`, None for anything else."""
    match = _VFIO_GROUP.fullmatch(device_id)
    return int(match[1]) if match else card_number(device_id)


def pci_path(real: str) -> tuple[str, ...]:
    """Return the PCI part of a device's real path, from the root bridge down; empty for other devices.

    `/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0` ends in the function's own address. A root
    bridge below a function (Intel VMD makes a PCI domain of its own) starts the path again.
    """
    parts = real.split("/")
    roots = [n for n, part in enumerate(parts) if _PCI_ROOT.fullmatch(part)]
    first = roots[-1] if roots else len(parts)
    below = parts[first + 1 :]
    if not below or any(pci_number(part) is None for part in below):
        return ()
    return tuple(parts[first:])


def memory_bytes(mem_info: str) -> int | None:
    """Return the bytes of the `MemTotal` line; the driver writes KiB, with or without the unit."""
    match = _MEM_TOTAL.search(mem_info)
    return int(match[1]) * 1024 if match else None


def read_card(
    name: str,
    number: int,
    texts: Mapping[str, str],
    path: tuple[str, ...],
    node: NodeState,
    config: bytes | None,
) -> Card:
    """Return a card from the attributes that could be read; a missing or garbage attribute is None.

    `config` is the beginning of the function's configuration space.
    """
    return Card(
        name=name,
        number=number,
        physical_id=whole_number(texts, vendor.GPU_ATTRIBUTE),
        memory=memory_bytes(texts.get(vendor.MEMORY_ATTRIBUTE, "")),
        pci_path=path,
        product=_product(texts.get("device", "")),
        numa_node=_numa_node(texts),
        link=Link(
            speed=_speed(texts, "current_link_speed"),
            width=whole_number(texts, "current_link_width"),
            max_speed=_speed(texts, "max_link_speed"),
            max_width=whole_number(texts, "max_link_width"),
        ),
        node=node,
        function=function_state(config),
        aer_fatal=aer_total(texts.get("aer_dev_fatal", "")),
        aer_nonfatal=aer_total(texts.get("aer_dev_nonfatal", "")),
        misread=tuple(_misread(texts)),
        numa_misread=_numa_misread(texts),
    )


def _misread(texts: Mapping[str, str]) -> Iterator[str]:
    """Return the garbage attributes; a missing or empty attribute is merely unknown."""
    physical_id = texts.get(vendor.GPU_ATTRIBUTE, "").strip()
    if physical_id and whole_number(texts, vendor.GPU_ATTRIBUTE) is None:
        yield f"{vendor.GPU_ATTRIBUTE} reads {physical_id[:_MAX_QUOTED]!r}"
    mem_info = texts.get(vendor.MEMORY_ATTRIBUTE, "")
    if mem_info.strip() and memory_bytes(mem_info) is None:
        yield f"{vendor.MEMORY_ATTRIBUTE} has no line {vendor.MEMORY_TOTAL}"


def _numa_node(texts: Mapping[str, str]) -> int | None:
    node = whole_number(texts, _NUMA)  # -1, for none, is not a number here
    return node if node in _NUMA_NODES else None


def _numa_misread(texts: Mapping[str, str]) -> str:
    text = texts.get(_NUMA, "").strip()
    is_known = text in ("", "-1") or _numa_node(texts) is not None
    return "" if is_known else f"{_NUMA} reads {text[:_MAX_QUOTED]!r}"


def function_state(config: bytes | None) -> FunctionState:
    """Return the state by the first two bytes of a configuration space: a missing device reads all ones."""
    if config is None or len(config) < VENDOR_ID_BYTES:
        return FunctionState.UNKNOWN
    gone = config[:VENDOR_ID_BYTES] == b"\xff\xff"
    return FunctionState.SILENT if gone else FunctionState.ANSWERS


def is_suspended(runtime_status: str | None) -> bool:
    """Return whether the kernel has suspended a device, or is about to.

    A read of its configuration space would wake the device, or find it silent.
    """
    return (runtime_status or "").strip() in ("suspended", "suspending")


def without_waking(attributes: Iterable[str], *, asleep: bool) -> list[str]:
    """Return the `attributes` that may be read; a suspended device is not asked itself."""
    return [each for each in attributes if not (asleep and each in _WAKING_ATTRIBUTES)]


def aer_total(text: str) -> int | None:
    """Return the sum in `aer_dev_fatal` or `aer_dev_nonfatal`, None if unknown."""
    match = _AER_TOTAL.search(text)
    return int(match[1]) if match else None


def _product(text: str) -> str | None:
    return text.strip() if _PCI_ID.fullmatch(text.strip()) else None


def whole_number(texts: Mapping[str, str], attribute: str) -> int | None:
    """Return the value of a number of at most nine digits, None for anything else."""
    text = texts.get(attribute, "").strip()
    return int(text) if _NUMBER.fullmatch(text) else None


def _speed(texts: Mapping[str, str], attribute: str) -> float | None:
    match = _SPEED.match(texts.get(attribute, "").strip())
    return float(match[1]) if match else None


def library_name(name: str) -> bool:
    """Return whether a file of /usr/lib is a version of the management library: `libbiren-ml.so.1.12.0`."""
    return _LIBRARY.fullmatch(name) is not None
