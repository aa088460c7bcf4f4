"""How often something is measured: so many times, or as often as its time allows on a busy machine.

A whole run ends in under ten minutes: each loop has about a third more time than it takes on two idle cores.
"""

import sys
import time
from collections.abc import Iterator
from typing import Final

_LEAST: Final = 5


def rounds(count: int, seconds: float, least: int = _LEAST) -> Iterator[int]:
    """Yield the numbers of `count` rounds; after `seconds` no further round begins, but for the `least` first ones."""
    began = time.monotonic()
    for number in range(count):
        if number >= least and time.monotonic() - began > seconds:
            print(f" ({number} of {count} rounds)", end="", file=sys.stderr, flush=True)
            return
        yield number
