"""What `doctor` says of one prerequisite, and of all of them together."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs


class Verdict(enum.Enum):
    """How a prerequisite stands."""

    OK = "ok"
    WARNING = "warning"
    """Something does not work that the daemon can do without."""
    FAILURE = "failure"
    """No card, or not each, can be allocated."""
    UNKNOWN = "unknown"
    """It cannot be checked from here, which says nothing about it."""

    @property
    def rank(self) -> int:
        """The worse, the lower: the order in which people read them."""
        return [Verdict.FAILURE, Verdict.WARNING, Verdict.UNKNOWN, Verdict.OK].index(self)


@attrs.frozen
class Check:
    """One prerequisite."""

    name: str
    """A few words: `control node`."""
    verdict: Verdict
    seen: str
    """What was found, one line."""
    advice: str = ""
    """What to do; empty where nothing is to be done."""


_EXIT_STATUS: Final[Mapping[Verdict, int]] = {Verdict.WARNING: 1, Verdict.FAILURE: 2}


def exit_status(checks: Iterable[Check]) -> int:
    """0, 1 if there is a warning, 2 if there is a failure."""
    return max((_EXIT_STATUS.get(check.verdict, 0) for check in checks), default=0)


def ok(name: str, seen: str, advice: str = "") -> Check:
    """The prerequisite is met, or not needed."""
    return Check(name, Verdict.OK, seen, advice)


def warning(name: str, seen: str, advice: str) -> Check:
    """The daemon can do without, not everyone may."""
    return Check(name, Verdict.WARNING, seen, advice)


def failure(name: str, seen: str, advice: str) -> Check:
    """Something will not work."""
    return Check(name, Verdict.FAILURE, seen, advice)


def unknown(name: str, seen: str, advice: str = "") -> Check:
    """The check is not possible from here."""
    return Check(name, Verdict.UNKNOWN, seen, advice)


def some_of(things: Sequence[str], most: int = 3) -> str:
    """The first few of a list in one line, and how many more there are."""
    more = len(things) - most
    return "; ".join([*things[:most], *([f"and {more} more"] if more > 0 else [])])
