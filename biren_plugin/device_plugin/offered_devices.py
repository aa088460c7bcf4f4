"""Which devices a resource offers: its list from the node's verdicts, once the node's CDI file holds it."""

import math
from typing import TYPE_CHECKING, Final

import trio

from biren_plugin.board import Board, news_of
from biren_plugin.core.cdi.spec import offerable, withheld
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.errors import too_slow

if TYPE_CHECKING:
    from biren_plugin.files.cdi_owner import CdiOwner


async def probe_health(
    resource: str,
    inventory: Board[Inventory],
    judged: Board[DeviceList],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Post the judged list of `resource` whenever it changes; started with the first."""
    with inventory.subscribe() as inventories:
        async for current in inventories:
            found = current.list_of(resource)
            if found is None:
                continue  # the node no longer has the resource, and this task is about to be cancelled
            if found != judged.latest:
                judged.post(found)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED


WRITE_DEADLINE: Final = 5.0
"""Seconds that a new or recovered device waits for the disk."""


async def write_cdi_spec(
    judged: Board[DeviceList],
    owner: "CdiOwner",
    offered: Board[DeviceList],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Pass each judged list to the file's owner, and post it to `offered` once the owner has handled it.

    Started when the file holds what it can of the first list; devices it does not hold are Unhealthy with
    the reason. Worse verdicts do not wait for the disk, and better ones at most `WRITE_DEADLINE`.
    """
    from biren_plugin.core.cdi.findings import OnDisk  # a millisecond of a start without CDI

    handed: DeviceList | None = None
    number = 0
    late = math.inf
    with news_of(judged, owner.on_disk) as news:
        while True:
            with trio.move_on_at(late):
                await news.receive()
            current = judged.latest
            if current is None:
                continue  # only the disk's content changed
            if current is not handed:
                # First, because the file may lose a device from the moment the list is passed on.
                if offered.latest is not None:
                    _post(withheld(current, offered.latest), offered)
                number = owner.hand(current)
                handed, late = current, min(late, trio.current_time() + WRITE_DEADLINE)
            on_disk = owner.on_disk.latest or OnDisk()
            if on_disk.answers < number and trio.current_time() < late:
                continue
            late = math.inf
            is_answered = on_disk.answers >= number
            reason_for = on_disk.reason_for if is_answered else _no_reason
            late_write = too_slow(f"writing {owner.path}", WRITE_DEADLINE)
            otherwise = f"the CDI file lacks it: {late_write}"
            _post(offerable(current, on_disk.spec, reason_for, otherwise), offered)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED


def _no_reason(_name: str) -> str:
    return ""


def _post(devices: DeviceList, offered: Board[DeviceList]) -> None:
    if devices != offered.latest:
        offered.post(devices)
