"""`devices`: what is on this host, as a table for people or a document for programs."""

import json
import sys
from pathlib import Path
from typing import Any

from biren_plugin.commands.tables import print_table
from biren_plugin.core.health.verdicts import HealthKeeper
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.model import Device, Inventory, Snapshot
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card, Link
from biren_plugin.host.driver_cards import DriverCardReader
from biren_plugin.host.readers import read_once

_HEADINGS = (
    "CARD", "RESOURCE", "GPU", "PCI ADDRESS", "NUMA", "MEMORY", "LINK", "DEVICE NODE", "HEALTH",
)  # fmt: skip
_GIB = 1024**3


def show_devices(host_root: Path, *, as_json: bool) -> None:
    """Prints the cards below `host_root`; nothing is remembered, so a split counts as it looks now."""
    snapshot = read_once(DriverCardReader(host_root))
    if as_json:
        json.dump(document(snapshot), sys.stdout, indent=2)
        print()
    elif snapshot.cards:
        print_table(_HEADINGS, [_row(card, device) for card, device in _devices(snapshot)])
    else:
        where = vendor.CLASS_FOLDER
        found = "no card in it" if snapshot.driver_loaded else "it does not exist"
        print(
            f"No Biren card on this host: {where}: {found}. Is the driver loaded (`{vendor.MODPROBE}`)?"
        )


def document(snapshot: Snapshot) -> dict[str, Any]:
    """The document of `--json`; its shape is schema/devices.schema.json."""
    return {
        "driver_loaded": snapshot.driver_loaded,
        "control_node": snapshot.host.control_node,
        "devices": [
            {
                "card": card.name,
                "resource": device.resource if device is not None else None,
                "physical_gpu": card.physical_id,
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
                "healthy": device.healthy if device is not None else None,
                "reasons": list(device.reasons) if device is not None else [],
            }
            for card, device in _devices(snapshot)
        ],
    }


def judge_once(snapshot: Snapshot) -> Inventory:
    """What a daemon that starts now would believe."""
    seen = Observed(snapshot)
    return HealthKeeper().judge(InventoryKeeper().update(seen, 0.0), seen, 0.0)


def _devices(snapshot: Snapshot) -> list[tuple[Card, Device | None]]:
    """Each card with the device it makes; None where its GPU is not settled or not known."""
    inventory = judge_once(snapshot)
    return [(card, inventory.find(card.name)) for card in snapshot.cards]


def resource_and_health(device: Device | None) -> tuple[str, str]:
    """Two cells of a table; `device` as a card makes it, or None."""
    if device is None:
        return "not settled", "-"
    health = "Healthy" if device.healthy else f"Unhealthy: {'; '.join(device.reasons)}"
    return device.resource, health


def _row(card: Card, device: Device | None) -> list[str]:
    resource, health = resource_and_health(device)
    return [
        card.name,
        resource,
        or_dash(card.physical_id),
        or_dash(card.pci_address),
        or_dash(card.numa_node),
        f"{card.memory / _GIB:.1f} GiB" if card.memory is not None else "-",
        _describe(card.link),
        card.path,
        health,
    ]


def _describe(link: Link) -> str:
    if link.speed is None or link.width is None:
        return "-"
    now = f"{link.speed:g} GT/s x{link.width}"
    if link.max_speed is None or link.max_width is None:
        return now
    most = f"{link.max_speed:g} GT/s x{link.max_width}"
    return now if now == most else f"{now} of {most}"


def or_dash(value: object) -> str:
    """A cell of a table."""
    return "-" if value is None else str(value)
