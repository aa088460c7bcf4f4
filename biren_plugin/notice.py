"""Log lines: each has an event's name, a text for people, and fields for programs.

1. `say` writes one line; a `Notice` writes one when a lasting fault begins, changes, and ends.
2. An event's name is the first argument and written out, so that the test that compares the names with
   docs/operations.md finds every one. Names are stable.
3. Fields that are texts or names identify the event's subject; monitor/logs limits the number of lines
   about one subject.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from biren_plugin.core.inventory_log import Remark

DEBUG: Final = logging.DEBUG
INFO: Final = logging.INFO
WARNING: Final = logging.WARNING
ERROR: Final = logging.ERROR

_log = logging.getLogger("biren_plugin")


def say(event: str, text: str, level: int = INFO, **fields: object) -> None:
    """Log a line."""
    _write(event, text, level, fields)


def say_bug(text: str, error: BaseException, where: str) -> None:
    """Log a bug of the plugin with its traceback."""
    trace = (type(error), error, error.__traceback__)
    say("bug", text, ERROR, where=where, exc_info=trace)


def say_remarks(remarks: Iterable[Remark]) -> None:
    """Log the remarks of `core`."""
    for each in remarks:
        _write(each.event, each.text, WARNING if each.bad else INFO, each.fields)


def log_record(
    event: str, text: str, level: int, fields: Mapping[str, object]
) -> logging.LogRecord:
    """Return the record of a line."""
    name = logging.getLevelName(level)
    record = {"name": _log.name, "levelno": level, "levelname": name, "msg": text, "event": event}
    return logging.makeLogRecord({**record, **fields, "event_fields": fields})


def is_debugging() -> bool:
    """Return whether DEBUG lines are shown, before making a text that is expensive."""
    return _log.isEnabledFor(DEBUG)


def _write(event: str, text: str, level: int, fields: Mapping[str, object]) -> None:
    if _log.isEnabledFor(level) and not _is_left_out(event, fields):
        _log.handle(log_record(event, text, level, fields))


def _is_left_out(event: str, fields: Mapping[str, object]) -> bool:
    """Return whether the log's only handler limits lines and leaves this one out.

    A record that is then left out costs as much as the answer to an allocation.
    """
    handlers = logging.root.handlers
    leaves_out = getattr(handlers[0], "leaves_out", None) if len(handlers) == 1 else None
    return leaves_out is not None and leaves_out(event, fields)


class Notice:
    """A fault that may last, and is logged once."""

    def __init__(self, show: Callable[[str], object] = lambda _cause: None) -> None:
        """Start without a fault; `show` gets the cause whenever it changes, and an empty text at its end."""
        self._cause = ""
        self._show = show

    def begin(
        self, event: str, text: str, level: int = WARNING, cause: str = "", **fields: object
    ) -> bool:
        """Log the fault, at `level` if it is new or has changed, else at DEBUG.

        `cause` identifies the fault if `text` has more in it. Returns whether the fault is new.
        """
        is_new = self._cause != (cause or text)
        self._cause = cause or text
        self._show(self._cause)
        _write(event, text, level if is_new else DEBUG, fields)
        return is_new

    @property
    def has_begun(self) -> bool:
        """Return whether a fault was logged and has not ended."""
        return bool(self._cause)

    def end(self, event: str, text: str, **fields: object) -> None:
        """Log that the fault is over, if there was one."""
        if self._cause:
            _write(event, text, INFO, fields)
        self.forget()

    def forget(self) -> None:
        """Forget the fault: its end needs no line."""
        self._cause = ""
        self._show("")
