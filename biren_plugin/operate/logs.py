"""How the daemon's log looks: one line an event, on standard error."""

import logging
import sys
import time

_NOISY = ("hpack", "h2")  # purerpc's versions log every header at DEBUG


class _OneLine(logging.Formatter):
    """No text, a peer's or a pod's, makes a second line of its own; tracebacks do."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The record's line."""
        return " ".join(super().formatMessage(record).split("\n"))


def configure(level: str) -> None:
    """Sends the log to standard error from `level` (`debug`, `info`, `warning`, `error`) on."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = _OneLine("%(asctime)s %(levelname)-7s %(message)s")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
