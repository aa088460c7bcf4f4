"""What one instance does for the node: it holds the kubelet's folder, and runs a subtree a resource."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.placement.choose import Placement
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.folder import KubeletFolder
from biren_plugin.device_plugin.folder_lock import hold_folder
from biren_plugin.device_plugin.resource import ResourceMemory, run_resource
from biren_plugin.errors import KubeletRestarted, NodeError
from biren_plugin.files.cdi_owner import CdiOwner
from biren_plugin.supervise import keep_running
from biren_plugin.unix_sockets import FileIdentity

log = logging.getLogger(__name__)


@attrs.frozen
class Serving:
    """Serves the kubelet's folder at `path` whenever no other instance does."""

    path: Path
    folder: Board[KubeletFolder]
    state: DaemonState
    placement: Placement
    cdi: CdiOwner | None = None
    """The owner of the node's CDI file; None: containers get nodes and mounts."""
    beside: Sequence[Callable[[], Awaitable[None]]] = ()
    """What is for the one instance that serves, besides its resources."""

    async def run(self) -> None:
        """Ends only by failing or being cancelled; moves over to a folder that was made anew."""
        while True:
            self.state.role = "waiting"
            with await hold_folder(self.path, self.folder, self.state.stand_by) as held:
                self.state.role = "serving"
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_resources, nursery)
                    for task in self.beside:
                        nursery.start_soon(task)
                    await held.until_replaced(self.folder)
                    log.warning(
                        "%s was removed or made anew: starting over in it", self.path,
                        extra={"event": "folder_replaced"},
                    )  # fmt: skip
                    nursery.cancel_scope.cancel()

    async def _run_resources(self, nursery: trio.Nursery) -> None:
        """A subtree for each resource that the node has, for as long as it has it."""
        running: dict[str, trio.CancelScope] = {}
        with self.state.inventory.subscribe() as inventories:
            async for current in inventories:
                wanted = {devices.resource for devices in current.lists}
                for resource in running.keys() - wanted:
                    running.pop(resource).cancel()
                    if self.cdi is not None:
                        self.cdi.forget(resource)
                    log.info(
                        "%s: the node has none any more", resource,
                        extra={"event": "resource_gone", "resource": resource},
                    )  # fmt: skip
                for resource in sorted(wanted - running.keys()):
                    running[resource] = trio.CancelScope()
                    nursery.start_soon(self._run_resource, resource, running[resource])

    async def _run_resource(self, resource: str, scope: trio.CancelScope) -> None:
        memory = ResourceMemory(counters=self.state.counters)
        kubelet: FileIdentity | None = None

        async def live() -> None:
            nonlocal kubelet
            kubelet = self.folder.latest.kubelet if self.folder.latest is not None else None
            with self.state.life_of(resource, memory.registered, memory.offered):
                await run_resource(
                    resource,
                    self.path,
                    self.folder,
                    self.state.inventory,
                    memory,
                    self.placement,
                    self.cdi,
                )

        async def kubelet_changed() -> None:
            await self.folder.wait_for(lambda seen: seen.kubelet not in (None, kubelet))

        with scope:
            await keep_running(
                live,
                resource,
                expected=(NodeError,),
                at_once=(KubeletRestarted,),
                sooner=kubelet_changed,
                worked=lambda: bool(memory.registered.latest),
                on_failure=partial(self.state.counters.restarted, resource),
            )
