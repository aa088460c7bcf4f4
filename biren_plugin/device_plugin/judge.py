"""From the node's verdicts to one resource's list."""

import trio

from biren_plugin.board import Board
from biren_plugin.core.model import DeviceList, Inventory


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
