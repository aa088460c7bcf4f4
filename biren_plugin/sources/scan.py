"""Looks at the host, again and again, and posts what it saw: the first source of the survey."""

from collections.abc import Callable, Mapping
from typing import TypeVar

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


async def scan_host(
    reader: Reader[T],
    folder_events: FolderEvents,
    observed: Board[Observed],
    *,
    interval: float,
    pulse: int = 0,
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Posts a snapshot every `interval` seconds at least; every `pulse` seconds all is read anew.

    `on_turn` gets the seconds that each look took. Where the host cannot be read, that is said once, and what was posted stays.
    """
    anew = False
    patient_reads = PatientReads(
        reader.names, lambda name: reader.read(name, anew=anew), "/sys and /dev"
    )
    readings: Mapping[str, T] = {}
    next_beat = trio.current_time() + pulse
    notice = Notice()
    while True:
        folder_events.arm()
        began = trio.current_time()
        anew |= bool(pulse) and trio.current_time() >= next_beat
        try:
            look = await patient_reads.look()
        except HostUnreadable as error:
            text = f"{error}. Until then the last scan stays valid"
            notice.begin("host_unreadable", text, ERROR, reason=str(error))
        else:
            notice.end("host_readable", "/sys and /dev can be read again")
            awaited = {name: readings[name] for name in look.pending if name in readings}
            readings = {**awaited, **look.values}
            # One that was never read counts as hung at once: without it a split would look smaller.
            hung = look.hung | (look.pending - readings.keys())
            seen = observed.latest or Observed()
            seen = attrs.evolve(seen, snapshot=reader.snapshot(readings, hung))
            if anew:
                seen = attrs.evolve(seen, pulse=seen.pulse + 1)
                next_beat = trio.current_time() + pulse
                anew = False
            observed.post(seen)
        on_turn(trio.current_time() - began)
        await folder_events.wait(interval)
