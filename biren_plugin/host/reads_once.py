"""Reads many names once, for a command: without trio, whose import takes longer than all the reads.

`patient_reads` does the same for the daemon, scan after scan.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import outcome

from biren_plugin.errors import HostUnreadable, too_slow, why_no_thread

T = TypeVar("T")

LISTING: Final = 5.0
SHARED: Final = 1.0
FOLLOWING: Final = 0.1
"""Seconds for the listing, for a name, and for a name once another has hung: when one read hangs, all may."""


def read_names(
    names: Callable[[], Sequence[str]], read: Callable[[str], T | None]
) -> tuple[dict[str, T], frozenset[str]]:
    """Return the values by name, and the names whose read hangs; a value of None is left out.

    One thread reads all in turn; beside one that hangs, the next thread goes on with the rest. Raises
    `HostUnreadable`, and what the two functions raise.
    """
    listed = _call_each([""], lambda _name: names(), LISTING)
    if not listed:
        raise HostUnreadable(too_slow("reading /sys and /dev", LISTING, "driver"))
    found = listed[""].unwrap()
    results = _call_each(found, read, SHARED)
    values = {name: result.unwrap() for name, result in results.items()}
    return (
        {name: value for name, value in values.items() if value is not None},
        frozenset(found) - results.keys(),
    )


def _call_each(
    names: Sequence[str], call: Callable[[str], T], patience: float
) -> dict[str, outcome.Outcome[T]]:
    """Return the outcomes of the calls that end in time."""
    done: dict[str, outcome.Outcome[T]] = {}
    rest = iter(names)

    def work() -> None:
        for name in rest:  # shared by the threads: each name is taken once
            done[name] = outcome.capture(call, name)

    while True:
        thread = threading.Thread(target=work, name="read_host", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise HostUnreadable(why_no_thread(error)) from error
        before = -1
        while thread.is_alive() and before < len(done):
            before = len(done)
            thread.join(patience)
        if not thread.is_alive():  # nothing is left but what hangs
            return done.copy()
        patience = FOLLOWING
