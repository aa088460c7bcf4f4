"""Reads the whole host once: cards from `/sys/class/biren` and `/dev/biren`, and what goes with them.

Blocking; `scanner` runs it in a thread. Whatever a file does (vanish between two looks, hold
garbage, refuse to be read), the rest is still read.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from biren_plugin.core import sysfs
from biren_plugin.core.model import Card, Snapshot
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.driver_files import read_host_facts
from biren_plugin.host.rooted import NOT_THERE, node_state, resolve, under

_CLASS: Final = "/sys/class/biren"
_MAX_TEXT: Final = 4096
"""Bytes: sysfs gives at most a page, and a file that only looks like sysfs gives no more either."""


class HostReader:
    """Reads a host below `root`. Keeps what never changes of a card from look to look.

    `mount_host_path` and `mount_dri_device`: whether containers get the driver's files and vgem's
    render node; what nobody wants is not read.
    """

    def __init__(
        self, root: Path, *, mount_host_path: bool = False, mount_dri_device: bool = False
    ) -> None:
        self._root = root
        self._mount_host_path = mount_host_path
        self._mount_dri_device = mount_dri_device
        self.reading: str | None = None
        """The card that is being looked at, for whoever waits in vain for the end of a look."""
        self._fixed: dict[str, tuple[tuple[int, int, int], dict[str, str], tuple[str, ...]]] = {}

    def read(self, *, anew: bool = False, skip: Collection[str] = ()) -> Snapshot:
        """One look, but for the cards to `skip`; `anew`: nothing is taken from an earlier look.

        Raises `HostUnreadable` where it cannot tell whether there are cards at all.
        """
        if anew:
            self._fixed.clear()
        names: list[str] = []
        driver_loaded = True
        try:
            names = [name for name in os.listdir(under(self._root, _CLASS)) if name not in skip]
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise HostUnreadable(f"cannot read {_CLASS}: {error.strerror}") from error
            driver_loaded = False
        numbered = sorted(
            (number, name) for name in names if (number := sysfs.card_number(name)) is not None
        )
        for gone in self._fixed.keys() - {name for _, name in numbered}:
            del self._fixed[gone]
        cards = []
        for number, name in numbered:
            self.reading = name
            if card := self._read_card(name, number):
                cards.append(card)
        self.reading = None
        host = read_host_facts(
            self._root,
            mount_host_path=self._mount_host_path,
            mount_dri_device=self._mount_dri_device,
        )
        return Snapshot(tuple(cards), host, driver_loaded)

    def unread_card(self, name: str) -> Card:
        """What can be told of a card without reading its attributes: links lead to its PCI function."""
        number = sysfs.card_number(name)
        assert number is not None  # it was listed
        return sysfs.read_card(
            name, number, {}, self._pci_path(name), node_state(self._root, f"/dev/biren/{name}")
        )

    def _pci_path(self, name: str) -> tuple[str, ...]:
        return sysfs.pci_path(resolve(self._root, f"{_CLASS}/{name}/device") or "")

    def _read_card(self, name: str, number: int) -> Card | None:
        folder = under(self._root, f"{_CLASS}/{name}")
        try:
            status = folder.stat()
        except OSError:
            return None  # gone since it was listed, or a link that leads nowhere
        identity = (status.st_dev, status.st_ino, status.st_ctime_ns)
        if name not in self._fixed or self._fixed[name][0] != identity:
            texts = self._texts(folder, sysfs.FIXED_ATTRIBUTES)
            self._fixed[name] = (identity, texts, self._pci_path(name))
        _, fixed, path = self._fixed[name]
        texts = fixed | self._texts(folder, sysfs.IDENTITY_ATTRIBUTES)
        return sysfs.read_card(
            name, number, texts, path, node_state(self._root, f"/dev/biren/{name}")
        )

    def _texts(self, folder: Path, attributes: tuple[str, ...]) -> dict[str, str]:
        texts = {}
        for attribute in attributes:
            text = _read_text(f"{folder}/device/{attribute}")
            if text is not None:
                texts[attribute] = text
        return texts


def _read_text(path: str) -> str | None:
    """The first page of a regular file; None for anything else (a FIFO would block for ever)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, _MAX_TEXT).decode("ascii", errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
