"""Every name and number of Biren's, once: no other module of this package spells one out.

Also which versions of its driver are new enough: their parts compare as numbers, so 1.12.0 is after 1.2.2.

Source: the vendor's public device plugin, installation guides and operations notes. To support
another vendor, or a driver with other names, start here.
"""

import re
from typing import Final

PCI_VENDOR: Final = "0x1ee0"
"""In the form of a PCI function's attribute `vendor`."""
PCI_VENDOR_ID: Final = int(PCI_VENDOR, 16)
LSPCI: Final = f"lspci -d {PCI_VENDOR[2:]}:"
"""The command that lists Biren's PCI functions."""
LSPCI_DRIVERS: Final = f"lspci -nnkd {PCI_VENDOR[2:]}:"
"""The same, with the driver of each."""

MODULE: Final = "biren"
"""The driver's kernel module."""
HYPERVISOR_DRIVER: Final = "BEV_HYPER_DRIVER"
"""Driver of a physical function whose virtual functions are allocated."""
MODPROBE: Final = f"modprobe {MODULE}"
KERNEL_LOG: Final = f"dmesg | grep -i {MODULE}"
MINIMUM_DRIVER: Final = (1, 2, 2)
"""The oldest driver whose cards may be allocated."""
CONTROL_NODE_SINCE: Final = (1, 10)
"""Drivers from this version on have the control node."""

CLASS_FOLDER: Final = "/sys/class/biren"
MODULE_FOLDER: Final = f"/sys/module/{MODULE}"
NODE_FOLDER: Final = "/dev/biren"
CONTROL_NODE: Final = "/dev/biren-m"
"""User-space libraries need it in every container with a GPU."""
NAMES_IN_DEV: Final = frozenset({MODULE, CONTROL_NODE.removeprefix("/dev/"), "dri", "vfio"})
"""Names that appear in /dev with cards: their directory, the control node, render nodes, VFIO groups."""
GPU_ATTRIBUTE: Final = "physical_id"
"""The attribute of a card in sysfs with the number of its physical GPU."""
MEMORY_ATTRIBUTE: Final = "mem_info"
"""The attribute of a card in sysfs with a line of its memory, in KiB, after `MEMORY_TOTAL`."""
MEMORY_TOTAL: Final = "MemTotal"
CARD_PREFIX: Final = "card_"
"""The part of a card's name before the driver's node id."""

DOMAIN: Final = "birentech.com"
"""The domain of resources, labels and CDI names."""
LARGEST_GPU_MEMORY: Final = 64 * 1024**3
"""Bytes: more than any known Biren GPU has (Biren166M: 65024 MiB)."""

MONITORING_RESOURCE: Final = f"{DOMAIN}/gpu-monitoring"
"""The opt-in resource whose one device stands for all cards, and holds none."""
CDI_KIND: Final = f"{DOMAIN}/gpu"
"""One kind for whole GPUs and instances: a class may not begin with a digit, as `1-2-gpu` does."""
CDI_FILE: Final = "biren.yaml"
DRA_DRIVER: Final = f"gpu.{DOMAIN}"
"""The name of the driver for Dynamic Resource Allocation, and the domain of its attributes and taints."""
HAMI_BACKEND: Final = "biren"
"""The part of HAMi's annotations of a node that says whose cards they are about."""
CLAIM_KIND: Final = f"{DOMAIN}/claim"
"""The CDI kind of the devices that a claim's containers get."""
CLAIM_FILE_PREFIX: Final = f"{DOMAIN}-claim_"
"""The part of the name of a claim's CDI file before the claim's uid."""
FEATURE_FILE: Final = "biren.features"
"""The name of the plugin's file for Node Feature Discovery."""
CARDS_VARIABLE: Final = "BR_PHY_CARDS"
"""The environment variable from which Biren's runtime reads a container's cards."""
VISIBLE_VARIABLE: Final = "BIREN_VISIBLE_DEVICES"
"""The environment variable from which Biren's libraries read the indexes of a container's cards."""
RUNTIME_CLASS: Final = "biren"
"""A part of every name of the vendor's container runtime."""

LIBRARY: Final = "libbiren-ml.so"
"""The management library (BRML), without its version."""
LIBRARY_SONAME: Final = f"{LIBRARY}.1"
DRIVER_TREE: Final = "/usr/local/birensupa/driver"
"""The driver's own files; images link against them, libbesu.so.1 among others."""
SMI_FOLDER: Final = f"{DRIVER_TREE}/biren-smi"
"""The real places of the library and the tool, below `DRIVER_TREE`."""
LIBRARY_FOLDER: Final = "/usr/lib"
CONTAINER_FOLDER: Final = "/opt/birentech"
"""Stands for `/usr` in the paths of the driver's files in a container."""
LIBRARY_FOLDERS: Final = (LIBRARY_FOLDER, f"{SMI_FOLDER}/lib", f"{CONTAINER_FOLDER}/lib")
"""Where to look for the library, in this order."""
RUNTIME_TOOLKIT: Final = "/usr/local/birensupa/container-toolkit/biren-container-toolkit"
"""The directory of the vendor's container runtime."""
TOOL: Final = "/usr/bin/brsmi"
TOOL_LIST: Final = "brsmi gpu list"
"""The tool's command that lists the GPUs with their ids and instances."""
TOOL_HEALTH: Final = "brsmi gpu query -d health"
"""The tool's command that shows the health of each GPU."""
TOOL_TOPOLOGY: Final = "brsmi topo -m"
"""The tool's command that shows how GPUs are linked."""
TOOL_RESET: Final = "brsmi reset -g ID"
"""The tool's command that resets the GPU with that id of `TOOL_LIST`; no process may use it."""


def resource_of(parts: int) -> str:
    """Return the extended resource of the parts of a GPU: `birentech.com/gpu` of 1, `birentech.com/1-2-gpu` of 2."""
    return f"{DOMAIN}/gpu" if parts == 1 else f"{DOMAIN}/1-{parts}-gpu"


_VERSION: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,5}(?![0-9.])")


def version_numbers(text: str) -> tuple[int, ...] | None:
    """Return `(1, 12, 0)` for `1.12.0` and for `1.12.0-rc1`, None if it does not begin like a version."""
    match = _VERSION.match(text.strip())
    return tuple(map(int, match[0].split("."))) if match else None


def driver_suffices(text: str) -> bool | None:
    """Return whether a driver of that version is new enough; None if unknown."""
    numbers = version_numbers(text)
    return None if numbers is None else numbers >= MINIMUM_DRIVER
