"""Reads the host: cards from `/sys/class/biren` and `/dev/biren`, and the driver's files.

Blocking; `patient_reads` runs it in threads. A file that vanishes between two scans, holds garbage or
cannot be read does not keep the others from being read. A card that the kernel has suspended is not woken.

A glance at a host whose fingerprint is the same only asks each PCI function whether it answers, and reads the
rest of a few functions in turn.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse import sysfs, vendor
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.errors import HostUnreadable, reason_and_cure
from biren_plugin.host.driver_files import read_host_facts
from biren_plugin.host.host_fingerprint import HostFingerprint, read_fingerprint
from biren_plugin.host.host_paths import (
    NOT_THERE,
    find_node,
    node_state,
    require_root,
    resolve,
    under,
)
from biren_plugin.host.sysfs_files import read_bytes, read_text, read_texts

_MODULES: Final = "/sys/module"


class _Fixed(NamedTuple):
    """Constant data of a card."""

    identity: tuple[int, int, int]
    """Identifies the card's directory: a different identity is a different card."""
    texts: Mapping[str, str]
    path: tuple[str, ...]
    function_folder: str
    """This process's path of the directory of the card's PCI function, without links."""
    read_asleep: bool
    """Whether only a part could be read, since the card was suspended."""


class _Function(NamedTuple):
    """The changing data of a PCI function in one scan. The cards of a split GPU share it."""

    status: str | None
    texts: Mapping[str, str]
    config: bytes | None

    @property
    def asleep(self) -> bool:
        """Whether the kernel has suspended it."""
        return sysfs.is_suspended(self.status)


class _Reading(NamedTuple):
    """Everything that a card was made from: the same reading is the same card."""

    fixed: _Fixed
    function: _Function
    node: NodeState
    host_node: str | None


class DriverCardReader:
    """Reads a host below `root`. Keeps the constant data of a card between scans.

    `mount_host_path` and `mount_dri_device`: whether containers get the driver's files and vgem's
    render node; otherwise these are not read.
    """

    def __init__(
        self, root: Path, *, mount_host_path: bool = False, mount_dri_device: bool = False
    ) -> None:
        self._root = root
        self._mount_host_path = mount_host_path
        self._mount_dri_device = mount_dri_device
        self._about_host = Snapshot(driver_loaded=False)
        self._fixed: dict[str, _Fixed] = {}
        self._functions: dict[tuple[str, ...], _Function] = {}
        """What this scan has read of functions, by their place in the PCI tree."""
        self._cards: dict[str, tuple[_Reading, Card]] = {}
        self._names: list[str] = []
        """Of the last listing."""
        self._aliases: dict[str, str] = {}
        """Of the last listing: the entries that are another card, with its name."""
        self._fingerprint: HostFingerprint | None = None
        """Of the host at the last listing; None if it has no class directory."""
        self._real_nodes: dict[str, NodeState] = {}
        """The state of each node that a link leads to."""
        self._due: list[str] = []
        """For a glance: one card of each function; empty until the first glance after a listing."""
        self._in_turn: frozenset[str] = frozenset()
        """The cards whose functions this glance reads whole."""
        self._glances = 0

    def names(self) -> list[str]:
        """Return the names of the cards, ordered by number; also reads what the host has besides cards.

        Raises `HostUnreadable` if it is unknown whether there are any cards.
        """
        self._fingerprint = self._fingerprint_now()
        listed = self._fingerprint.cards if self._fingerprint is not None else ()
        numbers = {
            name: number for name in listed if (number := sysfs.card_number(name)) is not None
        }
        self._aliases = {name: other for name in numbers if (other := self._alias(name, numbers))}
        for name in self._aliases:
            del numbers[name]
        for gone in self._fixed.keys() - numbers:
            del self._fixed[gone]
            self._cards.pop(gone, None)
        self._functions, self._real_nodes, self._due = {}, {}, []
        state, real = find_node(self._root, vendor.CONTROL_NODE)
        if real is not None:
            self._real_nodes[real] = state
        self._about_host = self._read_about_host()
        self._names = sorted(numbers, key=lambda name: numbers[name])
        return self._names

    def _alias(self, name: str, listed: Collection[str]) -> str | None:
        """Return the listed card whose directory an entry leads to; None if it leads to its own.

        It would count as an instance, and its GPU as split.
        """
        folder = f"{self._root}{vendor.CLASS_FOLDER}"  # not `under`: a Path costs as much as a read
        try:
            other = os.readlink(f"{folder}/{name}").rstrip("/").rpartition("/")[2]
            if other == name or other not in listed:
                return None
            return other if Path(f"{folder}/{name}").samefile(f"{folder}/{other}") else None
        except OSError:  # not a link, or gone by now
            return None

    def due(self, turns: int) -> list[str] | None:
        """Return the cards to glance at, one of each function and those that could not be read yet.

        None if the host looks different.

        Each function, and what the host has besides cards, is read whole in one of `turns` glances.
        """
        if self._fingerprint is None or self._fingerprint != self._fingerprint_now():
            return None
        known = list(self._real_nodes.items())  # a late read may add one
        if any(node_state(self._root, real) is not was for real, was in known):
            return None
        turn, self._glances = self._glances % turns, self._glances + 1
        if turn == 0 and self._read_about_host() != self._about_host:
            return None
        cards = [card for _, card in list(self._cards.values())]  # here too
        if not self._due:
            self._due = list({card.pci_path or card.name: card.name for card in cards}.values())
        self._functions = {}
        without_node = [c.name for c in cards if c.node is not NodeState.CHARACTER_DEVICE]
        self._in_turn = frozenset(self._due[turn::turns])
        unread = [name for name in self._names if name not in self._cards]
        return [*self._due, *without_node, *unread]

    def glance(self, name: str) -> Card | None:
        """Return a card's last reading if its function still answers alike, else a new one, None if gone.

        The same fingerprint means that the card and its node are the same, unless the node is missing.
        """
        if name not in self._cards:
            return self.read(name)
        reading, card = self._cards[name]
        if reading.node is not NodeState.CHARACTER_DEVICE:
            return self.read(name)
        function, folder = reading.function, reading.fixed.function_folder
        if name in self._in_turn:
            identity = _identity_of(f"{self._root}{vendor.CLASS_FOLDER}/{name}")
            is_same = identity == reading.fixed.identity
            is_same = is_same and self._read_function(folder, reading.fixed.path) == function
            return card if is_same else self.read(name)
        status = function.status and read_text(f"{folder}/{sysfs.RUNTIME_STATUS}")
        asleep = sysfs.is_suspended(status)
        config = None if asleep else read_bytes(f"{folder}/config", sysfs.VENDOR_ID_BYTES)
        if (asleep, config) == (function.asleep, function.config):
            return card
        return self.read(name)

    def read(self, name: str, *, fresh: bool = False) -> Card | None:
        """Return one card, None if it has gone; `fresh`: nothing is reused from an earlier scan."""
        number = sysfs.card_number(name)
        assert number is not None  # it was listed
        folder = f"{self._root}{vendor.CLASS_FOLDER}/{name}"  # not `under`: a Path costs as much as a read
        identity = _identity_of(folder)
        if identity is None:
            self._cards.pop(name, None)
            return None  # gone since it was listed, or a link that leads nowhere
        device = f"{folder}/device"
        fixed = self._fixed.get(name)
        if fixed is not None and fixed.identity != identity:
            fixed = None
        function = self._read_function(device, fixed.path if fixed is not None else ())
        asleep = function.asleep
        if fresh or fixed is None or (fixed.read_asleep and not asleep):
            known = fixed.texts if fixed is not None and asleep else {}
            wanted = sysfs.without_waking(sysfs.FIXED_ATTRIBUTES, asleep=asleep)
            texts = {**known, **read_texts(device, wanted)}
            read_asleep = asleep and (fixed is None or fixed.read_asleep)
            at = resolve(self._root, f"{vendor.CLASS_FOLDER}/{name}/device") or ""
            path, function_folder = sysfs.pci_path(at), f"{self._root}{at}"
            fixed = _Fixed(identity, texts, path, function_folder, read_asleep)
            self._fixed[name] = fixed
        node, real = find_node(self._root, f"{vendor.NODE_FOLDER}/{name}")
        if real is not None:
            self._real_nodes[real] = node
        return self._card(name, number, _Reading(fixed, function, node, real))

    def _read_function(self, device: str, path: tuple[str, ...]) -> _Function:
        """Return the function behind a card; one with a known `path` is read once in a scan."""
        functions = self._functions  # a read that hangs does not tell a later scan
        if (read := functions.get(path)) is not None:
            return read
        status = read_text(f"{device}/{sysfs.RUNTIME_STATUS}")
        asleep = sysfs.is_suspended(status)
        texts = read_texts(device, sysfs.without_waking(sysfs.CHANGING_ATTRIBUTES, asleep=asleep))
        config = None if asleep else read_bytes(f"{device}/config", sysfs.VENDOR_ID_BYTES)
        read = _Function(status, texts, config)
        if path:
            functions[path] = read
        return read

    def _card(self, name: str, number: int, reading: _Reading) -> Card:
        before = self._cards.get(name)
        if before is not None and before[0] == reading:
            return before[1]
        texts = {**reading.fixed.texts, **reading.function.texts}
        path, config = reading.fixed.path, reading.function.config
        card = sysfs.read_card(name, number, texts, path, reading.node, config)
        if reading.host_node is not None:
            card = attrs.evolve(card, host_node=reading.host_node)
        if before is not None and before[1] == card:  # free memory and the like is not in a card
            card = before[1]
        self._cards[name] = reading, card
        return card

    def snapshot(self, readings: Mapping[str, Card], hung: Collection[str]) -> Snapshot:
        """Return the whole host from its cards' `readings`.

        A hung card gets its last reading, or what its links show.
        """
        cards = dict(readings)
        for name in hung:
            cards[name] = attrs.evolve(readings.get(name) or self._unread_card(name), hung=True)
        ordered = sorted(cards.values(), key=lambda card: card.number)
        left_out = tuple(
            f"{name} in {vendor.CLASS_FOLDER} is a second entry of {other}, and left out: the driver makes no "
            f"such entry; see `ls -l {vendor.CLASS_FOLDER}` on the node"
            for name, other in self._aliases.items()
        )
        return attrs.evolve(self._about_host, cards=tuple(ordered), left_out=left_out)

    def _unread_card(self, name: str) -> Card:
        """Return what is known of a card without reading its attributes: links lead to its PCI function."""
        number = sysfs.card_number(name)
        assert number is not None  # it was listed
        node = node_state(self._root, f"{vendor.NODE_FOLDER}/{name}")
        return sysfs.read_card(name, number, {}, self._pci_path(name), node, None)

    def _pci_path(self, name: str) -> tuple[str, ...]:
        return sysfs.pci_path(resolve(self._root, f"{vendor.CLASS_FOLDER}/{name}/device") or "")

    def _fingerprint_now(self) -> HostFingerprint | None:
        """Return the fingerprint, None if there is no class directory. Raises `HostUnreadable`."""
        try:
            return read_fingerprint(self._root)
        except OSError as error:
            if error.errno not in NOT_THERE:
                reason = reason_and_cure(error, "see `dmesg` on the node")
                raise HostUnreadable(f"cannot read {vendor.CLASS_FOLDER}: {reason}") from error
            require_root(self._root)
            return None

    def _read_about_host(self) -> Snapshot:
        version = (read_text(f"{self._root}{vendor.MODULE_FOLDER}/version") or "").strip()
        return Snapshot(
            host=read_host_facts(
                self._root,
                mount_host_path=self._mount_host_path,
                mount_dri_device=self._mount_dri_device,
            ),
            driver_loaded=self._fingerprint is not None,
            module_loaded=self._module_loaded(),
            driver_version=version or None,
        )

    def _module_loaded(self) -> bool | None:
        modules = under(self._root, _MODULES)
        try:
            if not (modules / vendor.MODULE).is_dir():
                return False if modules.is_dir() else None
        except OSError:  # not permitted
            return None
        # While the module is being unloaded, its cards go one by one, and the module goes last.
        return (read_text(f"{modules}/{vendor.MODULE}/initstate") or "").strip() != "going"


_UNREADABLE: Final = (0, 0, 0)
"""The identity of a directory that is there and may not be read: its card is not gone."""


def _identity_of(folder: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(folder)
    except OSError as error:
        return None if error.errno in NOT_THERE else _UNREADABLE
    return status.st_dev, status.st_ino, status.st_ctime_ns
