"""`status --problem`: one line and an exit status, as Node Problem Detector's custom plugins have them.

Source: the contract of custom plugins in `docs/custom_plugin_monitor.md` of kubernetes/node-problem-detector:
0 is OK, 1 is a problem, 2 and more is unknown; standard output is the message, cut at `max_output_length`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from biren_plugin.commands.tables import print_line
from biren_plugin.core.card_names import APART, alike, by_number, shorten_names
from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.errors import StatusUnavailable

OK: Final = 0
PROBLEM: Final = 1
UNKNOWN: Final = 2
_LONGEST_NAMES: Final = 30
"""Characters: Node Problem Detector keeps 80 of a line by default."""
_MOST_REASONS: Final = 3


def report_problem(folder: Path, ask: Callable[[Path], dict[str, Any]]) -> int:
    """Print which cards have a fault, and return the exit status; `ask` reads the socket in `folder`.

    A card that is recovering, retired by a new split, or held by an old pod has no fault.
    """
    try:
        document = ask(folder)
    except StatusUnavailable as error:
        print_line(f"unknown: {error}")
        return UNKNOWN
    devices = [
        device
        for each in document["resources"]
        if each["resource"] != MONITORING_RESOURCE
        for device in each["devices"]
    ]
    faulty = [device for device in devices if device["faults"]]
    faulty.sort(key=lambda each: by_number(each["card"]))
    if not faulty:
        print(f"no fault in {len(devices)} Biren cards")
        return OK
    print_line(_describe(faulty, len(devices)))
    return PROBLEM


def names_of_device(device: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return everything by which a text may call a device of the status document."""
    return device["card"], f"GPU {device.get('physical_gpu')}", device.get("pci_address")


def _describe(faulty: Sequence[dict[str, Any]], total: int) -> str:
    """Return which cards have which faults, and then why: what is cut off is the text.

    Cards with the same faults are named together, the most cards first.
    """
    by_faults: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for each in faulty:
        by_faults.setdefault(tuple(each["faults"]), []).append(each)
    groups = sorted(by_faults.items(), key=lambda group: -len(group[1]))
    cards = []
    for faults, members in groups:
        names = shorten_names([each["card"] for each in members]).removesuffix(f" ({len(members)})")
        if len(members) == total > 1 or len(names) > _LONGEST_NAMES:
            names = f"{len(members)} of {total} cards"
        cards.append(f"{names} ({', '.join(faults)})")
    named = [
        (each["card"], names_of_device(each), why)
        for _, members in groups
        for each in members
        for why in each["reasons"]
    ]
    reasons = [text for _, text in alike(named, APART)]
    more = len(reasons) - _MOST_REASONS
    rest = [f"{more} more in `br-gpu-device-plugin status`"] if more > 0 else []
    return f"{', '.join(cards)}: {'; '.join([*reasons[:_MOST_REASONS], *rest])}"
