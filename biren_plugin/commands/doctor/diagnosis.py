"""The result of `doctor` for one prerequisite, and for all of them together."""

import enum
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from biren_plugin.core.card_names import APART, alike, shorten_names
from biren_plugin.records import frozen


class Verdict(enum.Enum):
    """The state of a prerequisite."""

    OK = "ok"
    WARNING = "warning"
    """Something optional does not work."""
    FAILURE = "failure"
    """Some or all cards cannot be allocated."""
    UNKNOWN = "unknown"
    """The check is not possible from here."""

    @property
    def rank(self) -> int:
        """Return the rank in the table: the worse, the lower."""
        return [Verdict.FAILURE, Verdict.WARNING, Verdict.UNKNOWN, Verdict.OK].index(self)


@frozen
class Check:
    """One prerequisite."""

    name: str
    """The name of the row: `control node`."""
    verdict: Verdict
    seen: str
    """What was found, in one line."""
    advice: str = ""
    """What to do; empty if there is nothing to do."""


AS_ROOT: Final = "run doctor as root"
_EXIT_STATUS: Final[Mapping[Verdict, int]] = {Verdict.WARNING: 1, Verdict.FAILURE: 2}


def exit_status(checks: Iterable[Check]) -> int:
    """Return 0, 1 if there is a warning, or 2 if there is a failure."""
    return max((_EXIT_STATUS.get(check.verdict, 0) for check in checks), default=0)


def ok(name: str, seen: str, advice: str = "") -> Check:
    """Return a row for a prerequisite that is met, or not needed."""
    return Check(name, Verdict.OK, seen, advice)


def warning(name: str, seen: str, advice: str) -> Check:
    """Return a row for something optional that does not work."""
    return Check(name, Verdict.WARNING, seen, advice)


def failure(name: str, seen: str, advice: str) -> Check:
    """Return a row for something that keeps cards from being allocated."""
    return Check(name, Verdict.FAILURE, seen, advice)


def unknown(name: str, seen: str, advice: str = "") -> Check:
    """Return a row for a check that is not possible from here."""
    return Check(name, Verdict.UNKNOWN, seen, advice)


def cure_of(error: Exception) -> str:
    """Return what to do about an error of reading the node's files, or an error caused by one.

    Empty if the error's own text says so.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError):
        return ""
    if cause.errno in (errno.EACCES, errno.EPERM):
        return AS_ROOT
    return "correct the path, if a flag names it; else see `dmesg` on the node"


def by_reason(cards: Iterable[tuple[str, Iterable[str | None], Sequence[str]]]) -> list[str]:
    """Return `CARDS: REASONS` for cards, their further names, and their reasons.

    Cards with the same reasons are named together, and many whose reasons differ only by their names.
    """
    named = ((card, (card, *names), ", ".join(reasons)) for card, names, reasons in cards)
    return [f"{shorten_names(members)}: {text}" for members, text in alike(named, APART)]


def some_of(things: Sequence[str], most: int = 3) -> str:
    """Return the first few items of a list in one line, and the number of the rest."""
    more = len(things) - most
    return "; ".join([*things[:most], *([f"and {more} more"] if more > 0 else [])])
