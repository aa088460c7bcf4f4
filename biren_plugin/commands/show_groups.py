"""`devices --container-runtime kata`: the VFIO groups of this host, as a table or as a document."""

import json
import sys
from pathlib import Path
from typing import Any

from biren_plugin.commands.show_devices import judge_once, or_dash, resource_and_health
from biren_plugin.commands.tables import print_table
from biren_plugin.core.model import Device, Inventory, Snapshot
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vfio import address_of
from biren_plugin.host.readers import read_once
from biren_plugin.host.vfio_groups import VfioGroupReader

_HEADINGS = ("GROUP", "RESOURCE", "GPU", "FUNCTIONS", "NUMA", "HEALTH")


def show_groups(host_root: Path, *, as_json: bool) -> None:
    """Prints the groups below `host_root`, and a line for each function that no group is offered of."""
    snapshot = read_once(VfioGroupReader(host_root))
    inventory = judge_once(snapshot)
    if as_json:
        json.dump(document(snapshot, inventory), sys.stdout, indent=2)
        print()
        return
    if snapshot.cards:
        print_table(_HEADINGS, [_row(card, inventory.find(card.name)) for card in snapshot.cards])
    else:
        print(
            "No Biren function for VFIO on this host, neither bound to vfio-pci nor split by SR-IOV: "
            f"see `{vendor.LSPCI_DRIVERS}`"
        )
    for sentence in inventory.unsettled:
        print(sentence)


def document(snapshot: Snapshot, inventory: Inventory) -> dict[str, Any]:
    """The document of `--json`; its shape is schema/groups.schema.json."""
    found = [(card, inventory.find(card.name)) for card in snapshot.cards]
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
                "healthy": device.healthy if device is not None else None,
                "reasons": list(device.reasons) if device is not None else [],
            }
            for card, device in found
        ],
        "left_out": list(inventory.unsettled),
    }


def _row(card: Card, device: Device | None) -> list[str]:
    resource, health = resource_and_health(device)
    functions = ", ".join(card.functions)
    return [card.path, resource, or_dash(_gpu(card)), functions, or_dash(card.numa_node), health]


def _gpu(card: Card) -> str | None:
    """The address of the physical function behind a group."""
    return address_of(card.physical_id) if card.physical_id is not None else None
