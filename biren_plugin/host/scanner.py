"""Looks at the host, again and again, and posts what it holds. The only writer of its board."""

import logging
from functools import partial
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.changes import remark_inventory
from biren_plugin.core.inventory import InventoryKeeper
from biren_plugin.core.model import Inventory, Snapshot
from biren_plugin.host.doorbell import Doorbell
from biren_plugin.host.reader import HostReader

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between looks when no event calls for one."""
READ_DEADLINE: Final = 5.0
"""Seconds for one look at the whole host."""


async def scan_host(
    reader: HostReader,
    doorbell: Doorbell,
    inventory: Board[Inventory],
    *,
    pulse: int = 0,
) -> None:
    """Posts the inventory at first and whenever it changed; every `pulse` seconds all is read anew.

    A look that takes too long is abandoned and said once; what was posted stays, and the next look
    waits until that thread has come back (there is never more than one).
    """
    keeper = InventoryKeeper()
    one_thread = trio.CapacityLimiter(1)
    beats = 0
    next_beat = trio.current_time() + pulse
    too_slow = False
    while True:
        doorbell.arm()
        due = bool(pulse) and trio.current_time() >= next_beat
        if due:
            beats += 1
            next_beat = trio.current_time() + pulse
        snapshot: Snapshot | None = None
        with trio.move_on_after(READ_DEADLINE):
            snapshot = await trio.to_thread.run_sync(
                partial(reader.read, anew=due), abandon_on_cancel=True, limiter=one_thread
            )
        if snapshot is not None:
            current = keeper.update(snapshot, trio.current_time(), pulse=beats)
            if current != inventory.latest:
                for remark in remark_inventory(inventory.latest, current):
                    log.log(logging.WARNING if remark.bad else logging.INFO, remark.text)
                inventory.post(current)
        elif not too_slow:
            log.error(
                "reading /sys and /dev takes more than %g s, as when a driver hangs: "
                "the last lists stand; see `dmesg` on the node",
                READ_DEADLINE,
            )
        too_slow = snapshot is None
        await doorbell.wait(INTERVAL)
