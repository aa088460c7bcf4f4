"""Looks at the host, again and again, and posts what it holds. The only writer of its board."""

import logging
from typing import Final

import trio

from biren_plugin.board import Board
from biren_plugin.core.changes import remark_inventory
from biren_plugin.core.inventory import InventoryKeeper
from biren_plugin.core.model import Inventory
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.doorbell import Doorbell
from biren_plugin.host.lookout import Lookout

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between looks when no event calls for one."""


async def scan_host(
    lookout: Lookout,
    doorbell: Doorbell,
    inventory: Board[Inventory],
    *,
    pulse: int = 0,
) -> None:
    """Posts the inventory at first and whenever it changed; every `pulse` seconds all is read anew.

    Where the host cannot be read, that is said once, and what was posted stays.
    """
    keeper = InventoryKeeper()
    beats = 0
    next_beat = trio.current_time() + pulse
    anew = False
    trouble = ""
    while True:
        doorbell.arm()
        if pulse and trio.current_time() >= next_beat:
            beats += 1
            next_beat = trio.current_time() + pulse
            anew = True
        try:
            snapshot = await lookout.look(anew=anew)
        except HostUnreadable as error:
            if str(error) != trouble:
                log.error("%s: what was known before stands", error)
            trouble = str(error)
        else:
            anew, trouble = False, ""
            current = keeper.update(snapshot, trio.current_time(), pulse=beats)
            if current != inventory.latest:
                for remark in remark_inventory(inventory.latest, current):
                    log.log(logging.WARNING if remark.bad else logging.INFO, remark.text)
                inventory.post(current)
        await doorbell.wait(INTERVAL)
