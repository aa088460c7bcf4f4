"""Which reader a node needs: the one for the driver's cards, or the one for a kata node's VFIO groups."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Protocol, TypeVar

from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.pci_addresses import VFIO_FOLDER
from biren_plugin.core.settings import Settings
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.reads_once import read_names

T = TypeVar("T")


class Reader(Protocol[T]):
    """Reads cards or VFIO groups from a host. Blocking."""

    def names(self) -> list[str]:
        """Return the names to read. Raises `HostUnreadable`."""

    def read(self, name: str, *, fresh: bool) -> T | None:
        """Return one reading, None if it has gone; `fresh`: nothing is reused from an earlier scan."""

    def due(self, turns: int) -> list[str] | None:
        """Return the names to glance at; None if the host looks different than at the last listing.

        What changes rarely is read in one of `turns` glances. Raises `HostUnreadable`.
        """

    def glance(self, name: str) -> T | None:
        """Return the last reading, the same object, if nothing has changed; else as `read`."""

    def snapshot(self, readings: Mapping[str, T], hung: Collection[str]) -> Snapshot:
        """Return the whole host from the last readings."""


def reader_of(settings: Settings) -> Reader[Card]:
    """Return the reader for the node's container runtime."""
    if settings.offers_groups:
        from biren_plugin.host.vfio_groups import VfioGroupReader  # a millisecond of each start

        return VfioGroupReader(settings.host_root)
    return DriverCardReader(
        settings.host_root,
        mount_host_path=settings.mount_host_path,
        mount_dri_device=settings.mount_dri_device,
    )


def node_folder_of(settings: Settings) -> str:
    """Return the host's directory that holds the device nodes of the node's cards."""
    return VFIO_FOLDER if settings.offers_groups else vendor.NODE_FOLDER


def read_host(settings: Settings) -> Snapshot:
    """Return the whole host as it is now, for a command. Blocks for some seconds at most.

    A card whose files do not answer in time counts as hung. Raises `HostUnreadable`.
    """
    reader = reader_of(settings)
    return reader.snapshot(*read_names(reader.names, partial(reader.read, fresh=False)))


async def scan_once(settings: Settings) -> Snapshot:
    """Do the same as `read_host`, for a command that runs trio itself."""
    from biren_plugin.host.patient_reads import PatientReads  # trio: half the time of a command

    reader = reader_of(settings)
    reads = PatientReads(reader.names, partial(reader.read, fresh=False), "/sys and /dev")
    found = await reads.look()
    return reader.snapshot(found.values, found.pending)


def read_once(reader: Reader[Card]) -> Snapshot:
    """Read the whole host in this thread, however long that takes. Raises `HostUnreadable`."""
    readings = {name: reader.read(name, fresh=False) for name in reader.names()}
    return reader.snapshot({name: card for name, card in readings.items() if card is not None}, ())
