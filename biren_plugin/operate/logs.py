"""How the daemon's log looks: one line an event, on standard error."""

import logging
import sys
import time
from typing import ClassVar

_NOISY = ("hpack", "h2")  # purerpc's versions log every header at DEBUG


class _Formatter(logging.Formatter):
    converter = time.gmtime
    default_time_format: ClassVar[str] = "%Y-%m-%dT%H:%M:%S"
    default_msec_format: ClassVar[str] = "%s.%03dZ"


def configure(level: str) -> None:
    """Sends the log to standard error from `level` (`debug`, `info`, `warning`, `error`) on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
