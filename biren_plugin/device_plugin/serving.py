"""One instance's work for the node: hold the kubelet's directory, and run a subtree for each resource."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.device_plugin.folder_lock import HeldFolder, hold_folder
from biren_plugin.device_plugin.kubelet_folder import remove_abandoned
from biren_plugin.device_plugin.node import Node
from biren_plugin.device_plugin.resource import run_resource
from biren_plugin.device_plugin.waiting import Waiting
from biren_plugin.errors import KubeletRestarted, NodeError
from biren_plugin.notice import WARNING, say
from biren_plugin.records import frozen
from biren_plugin.supervise import keep_running
from biren_plugin.unix_sockets import FileIdentity


@frozen
class Serving:
    """Serves the kubelet's directory whenever no other instance does."""

    node: Node
    beside: Sequence[Callable[[], Awaitable[None]]] = ()
    """The task that runs besides the resources in the serving instance."""

    async def run(self) -> None:
        """Run until failing or cancelled; moves over to a re-created directory."""
        while True:
            await self._run_once()

    async def _run_once(self) -> None:
        """Wait for the lock, and serve until the directory is replaced."""
        self.node.state.role = "waiting"
        if self.node.cdi is not None:
            # Whoever ends another instance now should not cost the kubelet this time as well.
            await self.node.cdi.until_read()
        waiting = Waiting(self.node)
        watching = trio.CancelScope()

        async def watch_holder() -> None:
            with watching:
                await waiting.watch_holder()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_holder)
            with await hold_folder(self.node.path, self.node.folder, waiting.hindered) as held:
                waiting.over()
                watching.cancel()
                self.node.state.role = "serving"
                if removed := await self._remove_abandoned():
                    text = f"removed {', '.join(removed)}, left by a daemon that was killed"
                    say("sockets_removed", text, sockets=tuple(removed))
                try:
                    await self._serve(held)
                finally:
                    if self.node.cdi is not None:
                        await self.node.cdi.let_go()

    async def _remove_abandoned(self) -> list[str]:
        """In the thread that creates sockets there: a removal that comes late is still before those."""
        return await self.node.thread.run_or(
            partial(remove_abandoned, self.node.path), otherwise=[]
        )

    async def _serve(self, held: HeldFolder) -> None:
        """Serve until the directory is replaced."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_resources, nursery)
            if self.node.monitoring:
                nursery.start_soon(self._run_resource, MONITORING_RESOURCE, trio.CancelScope())
            for task in self.beside:
                nursery.start_soon(task)
            await held.until_replaced(self.node.folder)
            text = f"{self.node.path} was deleted or re-created: starting over in it"
            say("folder_replaced", text, WARNING)
            nursery.cancel_scope.cancel()

    async def _run_resources(self, nursery: trio.Nursery) -> None:
        """Run a subtree for each resource, for as long as the node has the resource."""
        running: dict[str, trio.CancelScope] = {}
        with self.node.state.inventory.subscribe() as inventories:
            async for current in inventories:
                wanted = {devices.resource for devices in current.lists}
                if not wanted and self.node.cdi is not None:
                    self.node.cdi.forget_all()
                for resource in running.keys() - wanted:
                    running.pop(resource).cancel()
                    if self.node.cdi is not None:
                        self.node.cdi.forget(resource)
                    text = f"{resource}: the node has no such device any more"
                    say("resource_gone", text, resource=resource)
                for resource in sorted(wanted - running.keys()):
                    running[resource] = trio.CancelScope()
                    nursery.start_soon(self._run_resource, resource, running[resource])

    async def _run_resource(self, resource: str, scope: trio.CancelScope) -> None:
        memory = self.node.memory_of(resource)
        folder = self.node.folder
        kubelet: FileIdentity | None = None

        async def live() -> None:
            nonlocal kubelet
            kubelet = folder.latest.kubelet if folder.latest is not None else None
            with self.node.state.life_of(resource, memory.registered, memory.offered):
                if resource == MONITORING_RESOURCE:
                    from biren_plugin.device_plugin.monitoring_resource import run_monitoring

                    await run_monitoring(self.node, memory)
                else:
                    await run_resource(resource, self.node, memory)

        async def until_kubelet_changed() -> None:
            await folder.wait_for(lambda seen: seen.kubelet not in (None, kubelet))

        with scope:
            await keep_running(
                live,
                resource,
                expected=(NodeError,),
                at_once=(KubeletRestarted,),
                until_hope=until_kubelet_changed,
                is_working=lambda: bool(memory.registered.latest),
                on_failure=partial(self.node.state.counters.restarted, resource),
            )
