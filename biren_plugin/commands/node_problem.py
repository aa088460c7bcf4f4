"""`status --problem`: one line and an exit status, as Node Problem Detector's custom plugins have them.

Source: the contract of custom plugins in `docs/custom_plugin_monitor.md` of kubernetes/node-problem-detector:
0 is OK, 1 is a problem, 2 and more is unknown; standard output is the message, cut at `max_output_length`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from biren_plugin.core.parse.sysfs import by_number
from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.errors import StatusUnavailable

OK: Final = 0
PROBLEM: Final = 1
UNKNOWN: Final = 2


def report_problem(folder: Path, ask: Callable[[Path], dict[str, Any]]) -> int:
    """Print which cards have a fault, and return the exit status; `ask` reads the socket in `folder`.

    A card that is recovering, retired by a new split, or held by an old pod has no fault.
    """
    try:
        document = ask(folder)
    except StatusUnavailable as error:
        print(f"unknown: {error}")
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
    # The probes first: what is cut off is the text.
    cards = ", ".join(f"{each['card']} ({', '.join(each['faults'])})" for each in faulty)
    reasons = "; ".join(dict.fromkeys(reason for each in faulty for reason in each["reasons"]))
    print(f"{cards}: {reasons}")
    return PROBLEM
