"""Scans the host repeatedly, and posts a snapshot of it: the first source of the survey."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.observed import Observed
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.patient_reads import SHARED, PatientReads
from biren_plugin.host.readers import Reader
from biren_plugin.notice import ERROR, Notice
from biren_plugin.shared_wakeups import until_wakeup

T = TypeVar("T")


REREAD: Final = 60.0
"""Seconds after which constant attributes are read again: the first read may have been at a bad moment."""
TURNS: Final = 5
"""Scans in which each PCI function is read whole once; in the others, it is only asked whether it answers."""
SELDOM: Final = 5.0
"""Seconds that these scans take at most, so that counters are read more often than they are believed."""


async def scan_host(
    reader: Reader[T],
    folder_events: FolderEvents,
    observed: Board[Observed],
    notice: Notice | None = None,
    *,
    interval: float,
    pulse: int = 0,
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Post a snapshot at least every `interval` seconds; every `pulse` seconds read everything again.

    After a first scan of the whole host, glances show whether it has changed; then the whole host is
    scanned at once, as it is after an event and while a read hangs. While nobody waits for what time alone
    changes, a glance that finds nothing wakes no task.

    `on_turn` gets the seconds that each scan took. A host that cannot be read begins in `notice`, and the last
    snapshot stays.
    """
    glancing = fresh = stale = False
    due: Sequence[str] | None = None
    turns = max(1, min(TURNS, round(SELDOM / interval)))

    def names() -> Sequence[str]:  # in a thread
        nonlocal due
        folder_events.arm(began)
        due = reader.due(turns) if glancing else None
        return reader.names() if due is None else due

    def read(name: str) -> T | None:  # in a thread
        return reader.read(name, fresh=fresh or stale) if due is None else reader.glance(name)

    def is_known(values: Mapping[str, T]) -> bool:  # in a thread
        return due is not None and not _differ(values, due, readings)

    patient_reads = PatientReads(names, read, "/sys and /dev")
    readings: Mapping[str, T] = {}
    next_beat = trio.current_time() + pulse
    next_reread = trio.current_time() + REREAD
    notice = notice or Notice()
    while True:
        began = trio.current_time()
        fresh |= bool(pulse) and began >= next_beat
        stale = began >= next_reread
        glancing &= not (fresh or stale)
        changed = False
        may_be_silent = glancing and interval <= SHARED and not observed.wants_repeats()
        try:
            begun = patient_reads.begin(is_known) if may_be_silent else None
            if begun is not None:
                changed = await begun.beside(partial(folder_events.wait, until_wakeup(interval)))
                if begun.seconds is not None:
                    on_turn(begun.seconds)
                    glancing = not changed
                    continue
            look = await patient_reads.look(begun)
            is_other = due is not None and _differ(look.values, due, readings)
            if changed or is_other or (due is not None and look.pending):
                glancing = False
                look = await patient_reads.look()
        except HostUnreadable as error:
            glancing = False  # the next scan has to show whether the fault is over
            text = f"{error}. The last scan stays valid" if readings else f"{error}"
            notice.begin("host_unreadable", text, ERROR, reason=str(error))
        else:
            notice.end("host_readable", "/sys and /dev can be read again")
            seen = observed.latest or Observed()
            if due is None:
                awaited = {name: readings[name] for name in look.pending if name in readings}
                readings = {**awaited, **look.values}
                # A card that was never read counts as hung at once: without it a split would look smaller.
                hung = look.hung | (look.pending - readings.keys())
                seen = attrs.evolve(seen, snapshot=reader.snapshot(readings, hung))
            if fresh or stale:
                next_reread = began + REREAD
            if fresh:
                seen = attrs.evolve(seen, pulse=seen.pulse + 1)
                next_beat = trio.current_time() + pulse
                fresh = False
            glancing = not look.pending
            observed.post(seen)  # an equal one too: splits settle with time
        on_turn(trio.current_time() - began)
        if await folder_events.wait(until_wakeup(interval)):
            glancing = False


def _differ(values: Mapping[str, T], due: Sequence[str], readings: Mapping[str, T]) -> bool:
    """Return whether a glance found anything else than the last scan of the whole host."""
    return any(values.get(name) is not readings.get(name) for name in {*due, *values})
