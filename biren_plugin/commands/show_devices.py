"""`devices`: the cards of this host, or its VFIO groups, as a table for people or JSON for programs."""

import json as json_text
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from biren_plugin.commands.tables import Row, print_cards, print_line
from biren_plugin.core.health.verdicts import HealthKeeper
from biren_plugin.core.inventory.excluded_cards import without_uuids
from biren_plugin.core.inventory.gpu_grouping import name_of_gpu, names_of_card
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.physical_gpus import SPLIT_SETTLE, on_their_gpus
from biren_plugin.core.model import Device, Inventory, Snapshot
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card, Link
from biren_plugin.core.parse.pci_addresses import address_of
from biren_plugin.core.settings import ContainerRuntime, Settings
from biren_plugin.host.host_paths import under
from biren_plugin.host.readers import read_host

_CARD_HEADINGS: Final = (
    "CARD", "RESOURCE", "GPU", "PRODUCT", "PCI ADDRESS", "NUMA", "MEMORY", "LINK", "DEVICE NODE",
    "HEALTH",
)  # fmt: skip
_GROUP_HEADINGS: Final = ("GROUP", "RESOURCE", "GPU", "FUNCTIONS", "NUMA", "HEALTH")
_DROPPABLE: Final = ("PRODUCT", "GPU", "NUMA", "LINK", "DEVICE NODE")
"""Columns that are left out in a narrow terminal; JSON has them all."""
_GIB: Final = 1024**3


def devices(
    *,
    json: bool = False,
    topology: bool = False,
    container_runtime: ContainerRuntime = "runc",
    exclude: tuple[str, ...] = (),
    host_root: Path = Path("/"),
) -> int:
    """Show the Biren cards of this host, or its VFIO groups.

    A host without a card is not an error: the exit status is 0, and the JSON document lists no card.

    Parameters
    ----------
    json
        Print one JSON document (its schema: devices, groups or topology.schema.json in
        share/br-gpu-device-plugin/schema of the Python environment).
    topology
        Show how close the cards are to each other instead: links from the management library, and places
        in the PCI tree.
    container_runtime
        runc: the driver's cards. kata: the IOMMU groups of Biren functions that are bound to vfio-pci.
    exclude
        Show a card as excluded, as a daemon with this flag would; by name or PCI address, since only the
        daemon knows UUIDs.
    host_root
        Where the host's /sys and /dev are found.
    """
    settings = Settings(host_root=host_root, container_runtime=container_runtime, exclude=exclude)
    if topology:
        from biren_plugin.commands.show_topology import show_topology

        show_topology(settings, as_json=json)
        return 0
    snapshot = read_host(settings)
    inventory = judge_once(snapshot, settings.exclude)
    if json:
        document = groups_document if snapshot.shows_groups else cards_document
        json_text.dump(document(snapshot, inventory), sys.stdout, indent=2)
        print()
    elif snapshot.shows_groups:
        _show_groups(snapshot, inventory)
    else:
        _show_cards(host_root, snapshot, inventory)
    return 0


def judge_once(snapshot: Snapshot, exclude: Sequence[str] = ()) -> Inventory:
    """Return what a daemon that starts now would conclude: without a history, splits count as they are.

    UUIDs in the setting `exclude` are ignored: only the management library knows them.
    """
    seen = Observed(snapshot)
    keeper = InventoryKeeper(without_uuids(exclude))
    return HealthKeeper().judge(keeper.update(seen, 0.0), seen, 0.0)


def cards_document(snapshot: Snapshot, inventory: Inventory) -> dict[str, Any]:
    """Return the document of `--json`; its shape is schema/devices.schema.json."""
    return {
        "driver_loaded": snapshot.driver_loaded,
        "control_node": snapshot.host.control_node,
        "devices": [
            {
                "card": card.name,
                "resource": device.resource if device is not None else None,
                "physical_gpu": card.physical_id,
                "product": card.called,
                "pci_address": card.pci_address,
                "numa_node": card.numa_node,
                "memory_bytes": card.memory,
                "link": {
                    "speed_gts": card.link.speed,
                    "width": card.link.width,
                    "max_speed_gts": card.link.max_speed,
                    "max_width": card.link.max_width,
                },
                "device_node": card.path,
                "healthy": device.healthy if device is not None and not word else None,
                "reasons": list(device.reasons) if device is not None else [],
                "excluded_by": word or None,
                "dra_device": device.pool_name if device is not None else None,
            }
            for card, device, word in _devices(snapshot, inventory)
        ],
    }


def groups_document(snapshot: Snapshot, inventory: Inventory) -> dict[str, Any]:
    """Return the document of `--json` on a kata node; its shape is schema/groups.schema.json."""
    return {
        "groups": [
            {
                "group": card.number,
                "device_node": card.path,
                "resource": device.resource if device is not None else None,
                "gpu_address": _gpu(card),
                "instances": card.split,
                "functions": list(card.functions),
                "numa_node": card.numa_node,
                "healthy": device.healthy if device is not None and not word else None,
                "reasons": list(device.reasons) if device is not None else [],
                "excluded_by": word or None,
                "dra_device": device.pool_name if device is not None else None,
            }
            for card, device, word in _devices(snapshot, inventory)
        ],
        "left_out": list(inventory.unsettled),
    }


def _devices(snapshot: Snapshot, inventory: Inventory) -> list[tuple[Card, Device | None, str]]:
    """Yield each card, its device (None if its GPU is unsettled or unknown), and the word that excludes it."""
    excluded = {each.device.id: each for each in inventory.excluded}
    found = []
    for card in on_their_gpus(snapshot.cards):
        left_out = excluded.get(card.name)
        device = left_out.device if left_out is not None else inventory.find(card.name)
        found.append((card, device, left_out.word if left_out is not None else ""))
    return found


def _show_cards(host_root: Path, snapshot: Snapshot, inventory: Inventory) -> None:
    if snapshot.cards:
        rows = [_card_row(*each) for each in _devices(snapshot, inventory)]
        print_cards(_CARD_HEADINGS, rows, _DROPPABLE)
    else:
        folder = under(host_root, vendor.CLASS_FOLDER)
        missing = "it is not a directory" if os.path.lexists(folder) else "it does not exist"
        found = "no card in it" if snapshot.driver_loaded else missing
        print(
            f"No Biren card on this host: {folder}: {found}. "
            f"Is the driver loaded (`{vendor.MODPROBE}`)?"
        )
    for sentence in (*inventory.unsettled, *_settling(snapshot, inventory), *inventory.unmatched):
        print_line(sentence)


def _show_groups(snapshot: Snapshot, inventory: Inventory) -> None:
    if snapshot.cards:
        rows = [_group_row(*each) for each in _devices(snapshot, inventory)]
        print_cards(_GROUP_HEADINGS, rows, _DROPPABLE)
    else:
        print(
            "No Biren function for VFIO on this host, neither bound to vfio-pci nor split by SR-IOV: "
            f"see `{vendor.LSPCI_DRIVERS}`"
        )
    for sentence in (*inventory.unsettled, *_settling(snapshot, inventory), *inventory.unmatched):
        print_line(sentence)


def _settling(snapshot: Snapshot, inventory: Inventory) -> Iterator[str]:
    """Yield a sentence for each card that one scan cannot settle and that `unsettled` does not explain."""
    for card, device, _ in _devices(snapshot, inventory):
        about = f"{card.name}:", f"{name_of_gpu(card)} "
        if device is None and not any(each.startswith(about) for each in inventory.unsettled):
            yield (
                f"{card.name}: {name_of_gpu(card)} holds less memory than another GPU of this node, as while "
                f"it is re-split; the daemon offers it after {SPLIT_SETTLE:g} s without a change"
            )


def _card_row(card: Card, device: Device | None, word: str) -> Row:
    cells = (
        card.name,
        _resource(device),
        or_dash(card.physical_id),
        or_dash(card.called),
        or_dash(card.pci_address),
        or_dash(card.numa_node),
        f"{card.memory / _GIB:.1f} GiB" if card.memory is not None else "-",
        _describe(card.link),
        card.path,
        _health(device, word),
    )
    return Row(cells, _reasons(device, word), names_of_card(card))


def _group_row(card: Card, device: Device | None, word: str) -> Row:
    cells = (
        card.path,
        _resource(device),
        or_dash(_gpu(card)),
        ", ".join(card.functions),
        or_dash(card.numa_node),
        _health(device, word),
    )
    return Row(cells, _reasons(device, word), names_of_card(card))


def _resource(device: Device | None) -> str:
    return device.resource if device is not None else "not settled"


def _reasons(device: Device | None, word: str) -> Sequence[str]:
    if word:
        return [f"--exclude {word}"]
    return (*device.reasons, *device.warnings) if device is not None else ()


def _health(device: Device | None, word: str) -> str:
    if word:
        return "excluded"
    if device is None:
        return "-"
    return "Healthy" if device.healthy else "Unhealthy"


def _gpu(card: Card) -> str | None:
    """Return the address of the physical function behind a group."""
    return address_of(card.physical_id) if card.physical_id is not None else None


def _describe(link: Link) -> str:
    if link.speed is None or link.width is None:
        return "-"
    now = f"{link.speed:g} GT/s x{link.width}"
    if link.max_speed is None or link.max_width is None:
        return now
    most = f"{link.max_speed:g} GT/s x{link.max_width}"
    return now if now == most else f"{now} of {most}"


def or_dash(value: object) -> str:
    """Return a cell of a table."""
    return "-" if value is None else str(value)
