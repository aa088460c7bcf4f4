"""Versions of the driver: which are new enough. They are numbers, part by part: 1.12.0 is after 1.2.2.

Source of the least version: the vendor's installation guide.
"""

import re
from typing import Final

from biren_plugin.core.parse.vendor import MINIMUM_DRIVER

_VERSION: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,5}(?![0-9.])")


def version_numbers(text: str) -> tuple[int, ...] | None:
    """`(1, 12, 0)` of `1.12.0` and of `1.12.0-rc1`, None if it does not begin like a version."""
    match = _VERSION.match(text.strip())
    return tuple(map(int, match[0].split("."))) if match else None


def driver_suffices(text: str) -> bool | None:
    """Whether a driver of that version is new enough; None if the text does not tell."""
    numbers = version_numbers(text)
    return None if numbers is None else numbers >= MINIMUM_DRIVER
