"""Reads the host: cards from `/sys/class/biren` and `/dev/biren`, and the driver's files.

Blocking; `patient_reads` runs it in threads. A file that vanishes between two scans, holds garbage or
cannot be read does not keep the others from being read. A card that the kernel has suspended is not woken.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import attrs

from biren_plugin.core.model import HostFacts, Snapshot
from biren_plugin.core.parse import sysfs, vendor
from biren_plugin.core.parse.card import Card, NodeState
from biren_plugin.errors import HostUnreadable, reason_of
from biren_plugin.host.driver_files import read_host_facts
from biren_plugin.host.host_paths import (
    NOT_THERE,
    find_node,
    node_state,
    require_root,
    resolve,
    under,
)
from biren_plugin.host.sysfs_files import read_bytes, read_text, read_texts
from biren_plugin.records import frozen

_MODULES: Final = "/sys/module"


@frozen
class _Fixed:
    """Constant data of a card."""

    identity: tuple[int, int, int]
    """Identifies the card's directory: a different identity is a different card."""
    texts: Mapping[str, str]
    path: tuple[str, ...]
    read_asleep: bool
    """Whether only a part could be read, since the card was suspended."""


@frozen
class _Function:
    """The changing data of a PCI function in one scan. The cards of a split GPU share it."""

    asleep: bool
    texts: Mapping[str, str]
    config: bytes | None


@frozen
class _Reading:
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

    def names(self) -> list[str]:
        """Return the names of the cards, ordered by number; also reads what the host has besides cards.

        Raises `HostUnreadable` if it is unknown whether there are any cards.
        """
        listed: list[str] = []
        driver_loaded = True
        try:
            listed = os.listdir(under(self._root, vendor.CLASS_FOLDER))
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise HostUnreadable(
                    f"cannot read {vendor.CLASS_FOLDER}: {reason_of(error)}"
                ) from error
            require_root(self._root)
            driver_loaded = False
        numbers = {
            name: number for name in listed if (number := sysfs.card_number(name)) is not None
        }
        for gone in self._fixed.keys() - numbers:
            del self._fixed[gone]
            self._cards.pop(gone, None)
        self._functions = {}
        self._about_host = Snapshot(
            host=self._read_facts(),
            driver_loaded=driver_loaded,
            module_loaded=self._module_loaded(),
            driver_version=(read_text(f"{self._root}{vendor.MODULE_FOLDER}/version") or "").strip()
            or None,
        )
        return sorted(numbers, key=lambda name: numbers[name])

    def read(self, name: str, *, fresh: bool = False) -> Card | None:
        """Return one card, None if it has gone; `fresh`: nothing is reused from an earlier scan."""
        number = sysfs.card_number(name)
        assert number is not None  # it was listed
        folder = f"{self._root}{vendor.CLASS_FOLDER}/{name}"  # not `under`: a Path costs as much as a read
        try:
            status = os.stat(folder)
        except OSError:
            return None  # gone since it was listed, or a link that leads nowhere
        identity = (status.st_dev, status.st_ino, status.st_ctime_ns)
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
            fixed = _Fixed(identity, texts, self._pci_path(name), read_asleep)
            self._fixed[name] = fixed
        node, real = find_node(self._root, f"{vendor.NODE_FOLDER}/{name}")
        return self._card(name, number, _Reading(fixed, function, node, real))

    def _read_function(self, device: str, path: tuple[str, ...]) -> _Function:
        """Return the function behind a card; one with a known `path` is read once in a scan."""
        functions = self._functions  # a read that hangs does not tell a later scan
        if (read := functions.get(path)) is not None:
            return read
        asleep = sysfs.is_suspended(read_text(f"{device}/{sysfs.RUNTIME_STATUS}"))
        texts = read_texts(device, sysfs.without_waking(sysfs.CHANGING_ATTRIBUTES, asleep=asleep))
        config = None if asleep else read_bytes(f"{device}/config", sysfs.VENDOR_ID_BYTES)
        read = _Function(asleep, texts, config)
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
        return attrs.evolve(self._about_host, cards=tuple(ordered))

    def _unread_card(self, name: str) -> Card:
        """Return what is known of a card without reading its attributes: links lead to its PCI function."""
        number = sysfs.card_number(name)
        assert number is not None  # it was listed
        node = node_state(self._root, f"{vendor.NODE_FOLDER}/{name}")
        return sysfs.read_card(name, number, {}, self._pci_path(name), node, None)

    def _pci_path(self, name: str) -> tuple[str, ...]:
        return sysfs.pci_path(resolve(self._root, f"{vendor.CLASS_FOLDER}/{name}/device") or "")

    def _read_facts(self) -> HostFacts:
        return read_host_facts(
            self._root,
            mount_host_path=self._mount_host_path,
            mount_dri_device=self._mount_dri_device,
        )

    def _module_loaded(self) -> bool | None:
        modules = under(self._root, _MODULES)
        try:
            if vendor.MODULE not in os.listdir(modules):
                return False
        except OSError:
            return None
        # While the module is being unloaded, its cards go one by one, and the module goes last.
        return (read_text(f"{modules}/{vendor.MODULE}/initstate") or "").strip() != "going"
