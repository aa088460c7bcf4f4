"""Which versions of the driver are new enough. Parts compare as numbers: 1.12.0 is after 1.2.2.

Source of the oldest version: the vendor's installation guide.
"""

import re
from typing import Final

from biren_plugin.core.parse.vendor import MINIMUM_DRIVER

_VERSION: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,5}(?![0-9.])")


def version_numbers(text: str) -> tuple[int, ...] | None:
    """Return `(1, 12, 0)` for `1.12.0` and for `1.12.0-rc1`, None if it does not begin like a version."""
    match = _VERSION.match(text.strip())
    return tuple(map(int, match[0].split("."))) if match else None


def driver_suffices(text: str) -> bool | None:
    """Return whether a driver of that version is new enough; None if unknown."""
    numbers = version_numbers(text)
    return None if numbers is None else numbers >= MINIMUM_DRIVER
