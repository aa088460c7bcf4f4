"""From the node's verdicts to one resource's list, with a line in the log for each that changed."""

import trio

from biren_plugin.board import Board
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.remarks import remark_list
from biren_plugin.notice import say_remarks


async def probe_health(
    resource: str,
    inventory: Board[Inventory],
    judged: Board[DeviceList],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Posts the judged list of `resource` whenever it changed; started with the first.

    `judged` outlives a restart of this task, so that only what really changed is remarked on.
    """
    with inventory.subscribe() as inventories:
        async for current in inventories:
            found = current.list_of(resource)
            if found is None:
                continue  # the resource is at its end, and this task with it
            say_remarks(remark_list(judged.latest, found))
            if found != judged.latest:
                judged.post(found)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
