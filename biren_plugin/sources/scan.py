"""Scans the host repeatedly, and posts a snapshot of it: the first source of the survey."""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.observed import Observed
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.folder_events import FolderEvents
from biren_plugin.host.patient_reads import PatientReads
from biren_plugin.host.readers import Reader
from biren_plugin.notice import ERROR, Notice

T = TypeVar("T")


REREAD: Final = 60.0
"""Seconds after which constant attributes are read again: the first read may have been at a bad moment."""


async def scan_host(
    reader: Reader[T],
    folder_events: FolderEvents,
    observed: Board[Observed],
    *,
    interval: float,
    pulse: int = 0,
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Post a snapshot at least every `interval` seconds; every `pulse` seconds read everything again.

    `on_turn` gets the seconds that each scan took. A host that cannot be read is logged once, and the last
    snapshot stays.
    """
    fresh = stale = False
    patient_reads = PatientReads(
        reader.names, lambda name: reader.read(name, fresh=fresh or stale), "/sys and /dev"
    )
    readings: Mapping[str, T] = {}
    next_beat = trio.current_time() + pulse
    next_reread = trio.current_time() + REREAD
    notice = Notice()
    while True:
        folder_events.arm()
        began = trio.current_time()
        fresh |= bool(pulse) and began >= next_beat
        stale = began >= next_reread
        try:
            look = await patient_reads.look()
        except HostUnreadable as error:
            text = f"{error}. Until then the last scan stays valid" if readings else f"{error}"
            notice.begin("host_unreadable", text, ERROR, reason=str(error))
        else:
            notice.end("host_readable", "/sys and /dev can be read again")
            awaited = {name: readings[name] for name in look.pending if name in readings}
            readings = {**awaited, **look.values}
            # A card that was never read counts as hung at once: without it a split would look smaller.
            hung = look.hung | (look.pending - readings.keys())
            seen = observed.latest or Observed()
            seen = attrs.evolve(seen, snapshot=reader.snapshot(readings, hung))
            if fresh or stale:
                next_reread = began + REREAD
            if fresh:
                seen = attrs.evolve(seen, pulse=seen.pulse + 1)
                next_beat = trio.current_time() + pulse
                fresh = False
            observed.post(seen)
        on_turn(trio.current_time() - began)
        await folder_events.wait(interval)
