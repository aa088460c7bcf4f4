"""A node's labels about its GPUs, and the text of the file for Node Feature Discovery.

Source of the file's form: NFD's local feature source (`source/local/local.go`): lines of `name=value`,
comments start with `#`; a name that has a domain is used unchanged.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from biren_plugin.core.model import Inventory
from biren_plugin.core.parse.splits import SPLIT_OF_RESOURCE
from biren_plugin.core.parse.vendor import DOMAIN

_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""The label values that Kubernetes accepts."""
_NOT_IN_A_VALUE: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_VALUE: Final = 63
_SEVERAL: Final = "mixed"
_MIB: Final = 1024**2
_COMMENT: Final = (
    "# Written by br-gpu-device-plugin, which removes it when it ends; changes are lost.\n"
)


def node_labels(inventory: Inventory, driver_version: str | None) -> dict[str, str]:
    """Return labels by name; none for a node without a GPU. An unknown value has no label.

    `gpu.memory` is MiB of the smallest whole GPU. `gpu.product` is the PCI device id: sysfs has no name.
    `gpu.split` and `gpu.product` are `mixed` if the GPUs differ. Of a GPU that was just re-split only the
    new split counts, not its retiring devices.
    """
    devices = [
        device
        for each in inventory.lists
        for device in each.devices
        if device.card.present and device.card.physical_id is not None
    ]
    offered = {each.card.physical_id: each.resource for each in devices if each.healthy}
    present = [
        (each.card, SPLIT_OF_RESOURCE[each.resource])
        for each in devices
        if each.resource == offered.get(each.card.physical_id, each.resource)
    ]
    if not present:
        return {}
    memories = [card.memory * split for card, split in present if card.memory is not None]
    labels = {
        "gpu.count": f"{len({card.physical_id for card, _ in present})}",
        "gpu.memory": f"{min(memories) // _MIB}" if memories else "",
        "gpu.product": _common(card.product or "" for card, _ in present),
        "gpu.product-name": _as_value(_common(card.product_name or "" for card, _ in present)),
        "gpu.split": _common(f"{split}" for _, split in present),
        "driver.version": _as_value(driver_version or ""),
    }
    return {f"{DOMAIN}/{name}": value for name, value in labels.items() if _VALUE.fullmatch(value)}


def _as_value(text: str) -> str:
    """Return the text with `-` for characters that are not allowed: `1.12.0-build.5` for `1.12.0+build.5`."""
    return _NOT_IN_A_VALUE.sub("-", text)[:_MAX_VALUE].strip("-_.")


def _common(values: Iterable[str]) -> str:
    different = set(values)
    return different.pop() if len(different) == 1 else _SEVERAL


def feature_file(labels: Mapping[str, str]) -> str:
    """Return the text of NFD's feature file for these labels; empty without labels."""
    lines = [f"{name}={value}\n" for name, value in labels.items()]
    return _COMMENT + "".join(lines) if lines else ""
