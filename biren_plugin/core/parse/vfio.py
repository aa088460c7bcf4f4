"""Turns the links of PCI functions into IOMMU groups, and the readings of a group into its card.

1. A physical function that is bound to the hypervisor's driver is split into its virtual functions.
2. A function that is bound to vfio-pci and is not a virtual function is a whole GPU. It remains one when
   it is bound to another driver, so that the reason can be reported, until it leaves the bus or has
   virtual functions of its own.
3. Functions that share an IOMMU group are passed through together: a group is one card, of the GPU
   with the lowest address.
4. Functions that no card can be made from are left out, with a sentence. No input makes anything here
   raise.

Source of the rules: the vendor's plugin; of the rules for groups: the kernel's
Documentation/driver-api/vfio.rst, and `driver_managed_dma` in its drivers.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import attrs

from biren_plugin.core.parse import sysfs
from biren_plugin.core.parse.card import Card, FunctionState, NodeState
from biren_plugin.core.parse.pci_addresses import VFIO_FOLDER, pci_number
from biren_plugin.core.parse.splits import SPLITS_IN_WORDS
from biren_plugin.core.parse.vendor import HYPERVISOR_DRIVER
from biren_plugin.records import frozen

VFIO_DRIVER: Final = "vfio-pci"
FIXED_ATTRIBUTES: Final = sysfs.FIXED_ATTRIBUTES
"""Attributes of a physical function, read once."""
CHANGING_ATTRIBUTES: Final = (
    "sriov_numvfs",
    "current_link_width",
    "aer_dev_fatal",
    "aer_dev_nonfatal",
)
"""Attributes of a physical function: a virtual function has neither a link nor error counters."""
HEADER_BYTES: Final = 64
"""The header of `config`; the vendor id alone does not suffice: a virtual function's is always 0xFFFF."""

_GROUP: Final = re.compile(r"0|[1-9][0-9]{0,5}")
_BYSTANDERS: Final = frozenset({"", VFIO_DRIVER, "pci-stub", "pcieport"})
"""Drivers with which a group's other functions may be bound, so that the group can be used; "" is none."""


@frozen
class Function:
    """A PCI function, as shown by its links."""

    address: str
    """`0000:3b:00.0`."""
    driver: str | None = None
    """The driver's name; empty if there is none, None if unknown."""
    group: int | None = None
    """The number of its IOMMU group."""
    physical: bool = True
    """Whether it is a physical function, not a virtual one."""
    virtual_functions: tuple[str, ...] = ()
    """Addresses of the virtual functions that it is split into."""


@frozen
class Group:
    """An IOMMU group that a container can be given."""

    name: str
    """`/dev/vfio/12`."""
    number: int
    functions: tuple[str, ...]
    """Addresses of the functions that are passed through, the lowest first."""
    physical: str
    """Address of the physical function behind the group, the lowest if there are several."""
    instances: int
    """The number of parts of that physical function, by its links."""


@frozen
class Layout:
    """How the functions of a node are grouped."""

    groups: Mapping[str, Group] = attrs.Factory(dict)
    """By name, in the order of their numbers."""
    wholes: frozenset[str] = frozenset()
    """Functions that are whole GPUs, or were when last bound to vfio-pci."""
    left_out: tuple[str, ...] = ()
    """Sentences about functions that no card is made from."""


def group_number(link: str) -> int | None:
    """Return the 12 at the end of an `iommu_group` link."""
    end = link.rpartition("/")[2]
    return int(end) if _GROUP.fullmatch(end) else None


def lay_out(functions: Mapping[str, Function], known_wholes: Collection[str] = ()) -> Layout:
    """Return the groups of a node's `functions`, by address; `known_wholes` are those of the last scan.

    Virtual functions that are named by their physical function but missing from `functions` are gone.
    """
    virtual = {address for each in functions.values() for address in each.virtual_functions}
    ordered = sorted(functions.values(), key=lambda each: pci_number(each.address) or 0)
    physical = [each for each in ordered if each.physical and each.address not in virtual]
    wholes = [
        each
        for each in physical
        if each.driver == VFIO_DRIVER
        or (each.address in known_wholes and not each.virtual_functions)
    ]
    left_out = []
    parts = [(each, each.address, 1) for each in wholes]
    for each in physical:
        if each.driver != HYPERVISOR_DRIVER or each in wholes:
            continue
        if not each.virtual_functions:
            left_out.append(
                f"PCI function {each.address} has no virtual functions, so it is not offered; "
                f"on the node: write {SPLITS_IN_WORDS} to /sys/bus/pci/devices/{each.address}/sriov_numvfs, "
                "or bind it to vfio-pci"
            )
        count = len(each.virtual_functions)
        parts += [
            (functions.get(address, Function(address)), each.address, count)
            for address in each.virtual_functions
        ]
    grouped: dict[int, list[tuple[Function, str, int]]] = {}
    for part in parts:
        function = part[0]
        if function.group is not None:
            grouped.setdefault(function.group, []).append(part)
        else:
            left_out.append(
                f"PCI function {function.address} has no IOMMU group and cannot be passed through; "
                f"see `ls -l /sys/bus/pci/devices/{function.address}/` on the node, "
                "and whether its IOMMU is on"
            )
    groups = {}
    for number, members in sorted(grouped.items()):
        addresses = _in_order(function.address for function, _, _ in members)
        if len({count for _, _, count in members}) > 1:
            left_out.append(
                f"IOMMU group {number} holds parts of differently split GPUs "
                f"({', '.join(addresses)}): there is no resource for that"
            )
            continue
        name = f"{VFIO_FOLDER}/{number}"
        physical_function = _in_order(address for _, address, _ in members)[0]
        groups[name] = Group(name, number, addresses, physical_function, members[0][2])
    return Layout(groups, frozenset(each.address for each in wholes), tuple(left_out))


def card_of(
    group: Group,
    node: NodeState,
    *,
    paths: Mapping[str, tuple[str, ...]],
    drivers: Mapping[str, str | None] = {},
    headers: Mapping[str, bytes | None] = {},
    texts: Mapping[str, str] = {},
) -> Card:
    """Return a group's card from the values that could be read; missing or garbage values are None.

    `paths` and `headers`: PCI path and header of the functions that are passed through, `drivers` of
    all in the group (as in `Function`), each by address; `texts`: attributes of the physical function.
    """
    states = {address: function_state(headers.get(address)) for address in group.functions}
    worst = next(
        (
            state
            for state in (FunctionState.SILENT, FunctionState.UNKNOWN)
            if state in states.values()
        ),
        FunctionState.ANSWERS,
    )
    # The function that probes and tables name: the faulty one, if there is one.
    shown = next(address for address, state in states.items() if state is worst)
    numvfs = sysfs.whole_number(texts, "sriov_numvfs")
    is_whole = group.functions[0] == group.physical
    card = sysfs.read_card(group.name, group.number, texts, paths.get(shown, ()), node, None)
    return attrs.evolve(
        card,
        physical_id=pci_number(group.physical),
        split=1 if is_whole else numvfs or group.instances,
        function=worst,
        functions=group.functions,
        unbound=tuple(_unbound(group, drivers)),
    )


def function_state(header: bytes | None) -> FunctionState:
    """Return the state by the header: a missing function reads all ones."""
    if header is None or len(header) < HEADER_BYTES:
        return FunctionState.UNKNOWN
    gone = header[:HEADER_BYTES] == b"\xff" * HEADER_BYTES
    return FunctionState.SILENT if gone else FunctionState.ANSWERS


def _unbound(group: Group, drivers: Mapping[str, str | None]) -> Iterable[str]:
    for address in _in_order(drivers):
        driver = drivers[address]
        allowed = {VFIO_DRIVER} if address in group.functions else _BYSTANDERS
        if driver is not None and driver not in allowed:
            yield f"{address} ({driver or 'no driver'})"


def _in_order(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(addresses), key=lambda address: pci_number(address) or 0))
