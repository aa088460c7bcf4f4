"""The format of the daemon's log on standard error: a line for people, or one JSON object for programs.

Uses the standard library: structlog imports rich and asyncio, 6 MiB on top of 36.

The same event about the same subject (its fields that are texts or tuples of names) is logged `BURST`
times in a minute; after the minute, a line with the number of those left out precedes the next line.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Final, Literal

from biren_plugin.errors import printable
from biren_plugin.notice import WARNING, log_record
from biren_plugin.records import mutable

BURST: Final = 5
PERIOD: Final = 60.0
"""Seconds."""
SUBJECTS: Final = 256
"""Number of subjects remembered; the oldest makes room."""

_NOISY = ("hpack", "h2")  # purerpc's versions log every header at DEBUG
_ACCEPTING = "trio.serve_listeners"  # logs what keeps trio from accepting a connection
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "event",
    "event_fields",
}

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
"""`json.dumps` makes an encoder for each line."""

Subject = tuple[str, ...]


def event_of(record: logging.LogRecord) -> str:
    """Return the event's name; the logger's name if there is none, as in lines of libraries."""
    return str(getattr(record, "event", record.name))


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the event's fields: everything in `extra` besides the name."""
    fields = getattr(record, "event_fields", None) or vars(record)  # a line of a library has none
    return {name: value for name, value in fields.items() if name not in _STANDARD}


@mutable
class _Seen:
    since: float
    shown: int = 0
    left_out: int = 0


class RateLimit:
    """Decides which events are logged. `now` is in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[Subject, _Seen] = {}

    def admits(self, key: Subject, now: float) -> bool:
        """Return whether this event is logged."""
        seen = self._seen.setdefault(key, _Seen(now))
        if seen.shown < BURST:
            seen.shown += 1
            return True
        seen.left_out += 1
        return False

    def leaves_out(self, key: Subject, now: float) -> bool:
        """Return whether this event is not logged, and count it if so; else `over` and `admits` are to follow."""
        seen = self._seen.get(key)
        if seen is None or seen.shown < BURST or now - seen.since >= PERIOD:
            return False
        seen.left_out += 1
        return True

    def over(self, now: float) -> Iterator[tuple[Subject, int]]:
        """Forget events whose minute is over, or that make room; yield how many of each were left out."""
        while self._seen:
            key, seen = next(iter(self._seen.items()))  # the oldest
            if now - seen.since < PERIOD and len(self._seen) < SUBJECTS:
                return
            del self._seen[key]
            if seen.left_out:
                yield key, seen.left_out


class _LimitedHandler(logging.StreamHandler[Any]):
    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._limit = RateLimit()

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        for (event, *subject), count in self._limit.over(now):
            super().emit(_left_out(event, " ".join(subject), count))
        if self._limit.admits(_key(record), now):
            super().emit(record)

    def leaves_out(self, event: str, fields: Mapping[str, Any]) -> bool:
        """Return whether a line of `notice` would be left out, before its record is made."""
        with self.lock or nullcontext():
            return self._limit.leaves_out(_subject(event, fields), time.monotonic())


def _key(record: logging.LogRecord) -> Subject:
    if not hasattr(record, "event"):
        return record.name, str(record.msg)
    return _subject(event_of(record), fields_of(record))


def _subject(event: str, fields: Mapping[str, Any]) -> Subject:
    return event, *(
        str(each)
        for name, each in fields.items()
        if isinstance(each, str | tuple) and name not in _STANDARD
    )


def _left_out(event: str, subject: str, count: int) -> logging.LogRecord:
    text = f"{event} ({subject}): {count} more of these were left out of the log"
    return log_record("left_out", text, WARNING, {"of": event, "count": count})


class TextFormatter(logging.Formatter):
    """Formats a record as one line, whatever a peer's or a pod's text holds; only tracebacks add lines."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line."""
        return printable(" ".join(super().formatMessage(record).split("\n")))


class JsonFormatter(TextFormatter):
    """One object a line: `ts`, `level`, `event`, `message`, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line; a traceback is in the field `traceback`."""
        document = {
            "ts": self.formatTime(record),
            "level": record.levelname.lower(),
            "event": event_of(record),
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return _encode(document)


def dropped(count: int) -> str:
    """Return the line about `count` dropped lines, in the configured format."""
    text = (
        f"{count} lines of this log were dropped: standard error was not read, or its disk was full"
    )
    record = log_record("log_dropped", text, WARNING, {"count": count})
    return f"{logging.getLogger().handlers[0].format(record)}\n"


def _without_traceback(record: logging.LogRecord) -> bool:
    """Trio's line suffices: too many open files is a limit of the node, not a bug of ours."""
    record.exc_info = None
    return True


def configure(level: str, log_format: Literal["auto", "text", "json"]) -> None:
    """Send the log to standard error from `level` (`debug`, `info`, `warning`, `error`) up.

    `auto` is `text` in a terminal and `json` elsewhere.
    """
    handler = _LimitedHandler()
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    # No format shows the thread or the process, and finding them takes half of the time of a line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(_ACCEPTING).addFilter(_without_traceback)
