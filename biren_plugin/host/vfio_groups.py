"""Reads the host of a kata node: IOMMU groups of Biren functions, and their nodes in /dev/vfio.

Blocking; `patient_reads` runs it in threads. The listing only follows links and reads the vendor of each
new function, which the kernel has in memory. Reads that ask a device or wait for its driver are made group
by group, so that a hanging read holds up its own group only. A file that vanishes between two scans, leads
nowhere or holds garbage does not keep the others from being read.
"""

import errno
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import attrs

from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse import sysfs, vfio
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.core.parse.pci_addresses import noiommu_node, pci_number
from biren_plugin.core.parse.vendor import PCI_VENDOR
from biren_plugin.core.parse.vfio import Function, Group, Layout
from biren_plugin.errors import HostUnreadable, reason_and_cure
from biren_plugin.host.host_paths import NOT_THERE, node_state, require_root, resolve, under
from biren_plugin.host.sysfs_files import read_bytes, read_text, read_texts
from biren_plugin.records import frozen

_FUNCTIONS: Final = "/sys/bus/pci/devices"
_GROUPS: Final = "/sys/kernel/iommu_groups"
_VIRTUAL_FUNCTION: Final = re.compile(r"virtfn(0|[1-9][0-9]{0,5})")


@frozen
class _Fixed:
    """Constant data of a function."""

    inode: int
    """The inode of the function's link: a function that was removed and came back has another."""
    texts: Mapping[str, str]
    path: tuple[str, ...]
    read_asleep: bool
    """Whether only a part could be read, since the function was suspended."""


class VfioGroupReader:
    """Reads a host below `root`. Keeps the constant data of a function between scans."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bus = str(under(root, _FUNCTIONS))
        self._bus_there = False
        self._layout = Layout()
        self._inodes: dict[str, int] = {}
        """The inode of each function on the bus, by address."""
        self._is_biren: dict[str, tuple[int, bool]] = {}
        """By address: the function's inode, and whether it is Biren's."""
        self._fixed: dict[str, _Fixed] = {}

    def names(self) -> list[str]:
        """Return the groups as `/dev/vfio/12`, ordered by number.

        Raises `HostUnreadable` if it is unknown whether there are any.
        """
        self._inodes = self._list_bus()
        for remembered in (self._is_biren, self._fixed):
            for gone in remembered.keys() - self._inodes.keys():
                remembered.pop(gone, None)
        functions = {
            address: self._function(address)
            for address in self._inodes
            if self._belongs_to_us(address)
        }
        virtual = {address for each in functions.values() for address in each.virtual_functions}
        for address in virtual & self._inodes.keys() - functions.keys():
            functions[address] = self._function(address)
        self._layout = vfio.lay_out(functions, self._layout.wholes)
        return list(self._layout.groups)

    def read(self, name: str, *, fresh: bool = False) -> Card | None:
        """Return one group, None if it has gone; `fresh`: nothing is reused from an earlier scan."""
        group = self._layout.groups.get(name)
        if group is None or not any(map(self._is_there, group.functions)):
            return None
        fixed = {address: self._fixed_of(address, fresh) for address in group.functions}
        behind = fixed.get(group.physical) or self._fixed_of(group.physical, fresh)
        asleep = self._is_asleep(group.physical)
        wanted = sysfs.without_waking(vfio.CHANGING_ATTRIBUTES, asleep=asleep)
        changing = read_texts(self._folder(group.physical), wanted)
        return vfio.card_of(
            group,
            self._node_state(group),
            paths={address: each.path for address, each in fixed.items()},
            drivers={address: self._driver(address) for address in self._members(group)},
            headers={
                address: read_bytes(f"{self._folder(address)}/config", vfio.HEADER_BYTES)
                for address in group.functions
                if not self._is_asleep(address)
            },
            texts={**behind.texts, **changing},
        )

    def due(self, turns: int) -> list[str] | None:
        """Return None: drivers are bound to functions without a sign, so each scan reads all groups."""
        return None

    def glance(self, name: str) -> Card | None:
        """Return one group, None if it has gone."""
        return self.read(name)

    def snapshot(self, readings: Mapping[str, Card], hung: Collection[str]) -> Snapshot:
        """Return the whole host from its groups' `readings`.

        A hung group gets its last reading, or what its links show.
        """
        cards = dict(readings)
        for name in hung:
            card = readings.get(name) or self._unread_card(name)
            if card is not None:
                cards[name] = attrs.evolve(card, hung=True)
        ordered = sorted(cards.values(), key=lambda card: card.number)
        return Snapshot(
            tuple(ordered),
            driver_loaded=self._bus_there,
            left_out=self._layout.left_out,
            shows_groups=True,
        )

    def _unread_card(self, name: str) -> Card | None:
        """Return what is known of a group without reading an attribute; None if it has gone."""
        group = self._layout.groups.get(name)
        if group is None:
            return None
        paths = {address: self._path(address) for address in group.functions}
        return vfio.card_of(group, self._node_state(group), paths=paths)

    def _list_bus(self) -> dict[str, int]:
        self._bus_there = True
        try:
            with os.scandir(self._bus) as entries:
                return {entry.name: entry.inode() for entry in entries}
        except OSError as error:
            if error.errno not in NOT_THERE:
                reason = reason_and_cure(error, "see `dmesg` on the node")
                raise HostUnreadable(f"cannot read {_FUNCTIONS}: {reason}") from error
            require_root(self._root)
            self._bus_there = False
            return {}

    def _belongs_to_us(self, address: str) -> bool:
        inode = self._inodes[address]
        known = self._is_biren.get(address)
        if known is not None and known[0] == inode:
            return known[1]
        vendor = read_text(f"{self._folder(address)}/vendor")
        if vendor is None:
            return False  # not remembered: the next listing reads it again
        ours = vendor.strip() == PCI_VENDOR and pci_number(address) is not None
        self._is_biren[address] = (inode, ours)
        return ours

    def _function(self, address: str) -> Function:
        physical = _target(f"{self._folder(address)}/physfn") == ""
        return Function(
            address,
            driver=self._driver(address),
            group=vfio.group_number(_target(f"{self._folder(address)}/iommu_group") or ""),
            physical=physical,
            virtual_functions=self._virtual_functions(address) if physical else (),
        )

    def _virtual_functions(self, address: str) -> tuple[str, ...]:
        links = [name for name in self._listed(address) if _VIRTUAL_FUNCTION.fullmatch(name)]
        targets = [_target(f"{self._folder(address)}/{link}") for link in links]
        ends = {target.rpartition("/")[2] for target in targets if target}
        return tuple(sorted(end for end in ends if pci_number(end) is not None))

    def _listed(self, address: str) -> list[str]:
        try:
            return os.listdir(self._folder(address))
        except OSError:
            return []  # gone since the bus was listed

    def _members(self, group: Group) -> set[str]:
        """Return all functions of a group, including those that are not Biren's."""
        folder = under(self._root, f"{_GROUPS}/{group.number}/devices")
        try:
            listed = os.listdir(folder)
        except OSError:
            listed = []  # the group's known functions have to do
        return {*group.functions, *(each for each in listed if pci_number(each) is not None)}

    def _driver(self, address: str) -> str | None:
        """Return the driver's name; empty if the function has none, None if that is unknown."""
        target = _target(f"{self._folder(address)}/driver")
        if target == "" and not self._is_there(address):
            return None
        return target.rpartition("/")[2] if target is not None else None

    def _fixed_of(self, address: str, fresh: bool) -> _Fixed:
        inode = self._inodes.get(address, 0)
        known = self._fixed.get(address)
        if known is not None and known.inode != inode:
            known = None
        asleep = self._is_asleep(address)
        if fresh or known is None or (known.read_asleep and not asleep):
            kept = known.texts if known is not None and asleep else {}
            wanted = sysfs.without_waking(vfio.FIXED_ATTRIBUTES, asleep=asleep)
            texts = {**kept, **read_texts(self._folder(address), wanted)}
            read_asleep = asleep and (known is None or known.read_asleep)
            known = _Fixed(inode, texts, self._path(address), read_asleep)
            self._fixed[address] = known
        return known

    def _node_state(self, group: Group) -> NodeState:
        state = node_state(self._root, group.name)
        if state is NodeState.MISSING:
            without = node_state(self._root, noiommu_node(group.number))
            return NodeState.NOIOMMU if without is NodeState.CHARACTER_DEVICE else state
        return state

    def _is_asleep(self, address: str) -> bool:
        return sysfs.is_suspended(read_text(f"{self._folder(address)}/{sysfs.RUNTIME_STATUS}"))

    def _path(self, address: str) -> tuple[str, ...]:
        return sysfs.pci_path(resolve(self._root, f"{_FUNCTIONS}/{address}") or "")

    def _is_there(self, address: str) -> bool:
        return os.access(self._folder(address), os.F_OK)

    def _folder(self, address: str) -> str:
        return f"{self._bus}/{address}"


def _target(link: str) -> str | None:
    """Return where a link leads; empty if there is no link, None if that is unknown."""
    try:
        return os.readlink(link)
    except OSError as error:
        return "" if error.errno in {*NOT_THERE, errno.EINVAL} else None
