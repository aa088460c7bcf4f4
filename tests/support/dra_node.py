"""A node whose daemon offers its cards through DRA: simulated host, both halves of a kubelet, API server.

Everything but the hardware is real: sockets, gRPC by grpcio, TLS, files. So the tests run in real time.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from biren_plugin.daemon import run_daemon
from tests.kubelet.dra_manager import DraManager
from tests.kubelet.pod_resources import PodResources
from tests.support.api_server import Object, StandInApiServer
from tests.support.clocks import patience
from tests.support.node_in_process import NodeInProcess

NODE: Final = "node-7"
CLAIMS: Final = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims"


class DraNode:
    """The node in `folder`, which must be empty and have a short path."""

    def __init__(self, folder: Path, server: StandInApiServer) -> None:
        self.server = server
        self.node = NodeInProcess(folder)
        self.host = self.node.host
        self.host.add_gpus({0: 1, 1: 1, 2: 2})
        self.root = folder / "kubelet"
        self.claim_dir = folder / "claims"
        self.kubelet = DraManager(self.root)
        self.held_by_plugin: dict[tuple[str, str], str] = {}
        self.pod_resources = PodResources(
            self.node.settings.pod_resources_dir, lambda: self.held_by_plugin
        )
        self.pod_resources.claims = lambda: self.kubelet.claims()
        server.put(f"/api/v1/nodes/{NODE}", {"metadata": {"name": NODE, "uid": "uid-7"}})
        self.settings = attrs.evolve(
            self.node.settings,
            offer_by="dra",
            kubelet_root=self.root,
            claim_cdi_dir=self.claim_dir,
            kubeconfig=server.kubeconfig(folder),
            node_name=NODE,
        )

    @contextlib.asynccontextmanager
    async def running(
        self, *, until_devices: bool = True, **settings: Any
    ) -> AsyncIterator[trio.Nursery]:
        """Kubelet and daemon for the length of the block, which begins when the devices are stored."""
        self.pod_resources.start()
        try:
            with self.kubelet:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_daemon, attrs.evolve(self.settings, **settings))
                    if until_devices:
                        await self.until(lambda: bool(self.devices()))
                    await in_thread(lambda: self.kubelet.wait_for("registered"))
                    yield nursery
                    nursery.cancel_scope.cancel()
        finally:
            self.pod_resources.stop()

    @contextlib.contextmanager
    def new_kubelet(self, **how: Any) -> Iterator[DraManager]:
        """Another kubelet process, with the checkpoint of the last one unless `how` says otherwise."""
        how.setdefault("checkpoint", self.kubelet.checkpoint)
        with DraManager(self.root, **how) as kubelet:
            self.kubelet = kubelet
            yield kubelet

    def devices(self) -> dict[str, Object]:
        """The stored devices by name."""
        return {
            each["name"]: each
            for one in self.server.slices()
            for each in one["spec"].get("devices", ())
        }

    def taints(self, device: str) -> dict[str, str]:
        """The stored effects by key, of one device."""
        found = self.devices().get(device, {})
        return {each["key"]: each["effect"] for each in found.get("taints") or ()}

    def allocate(
        self, name: str, *devices: str, uid: str = "", **more: Any
    ) -> tuple[str, str, str]:
        """The scheduler gives these devices to the claim; what the kubelet calls the claim."""
        uid = uid or f"uid-{name}"
        results = [
            {
                "request": "cards",
                "driver": "gpu.birentech.com",
                "pool": NODE,
                "device": each,
                **more,
            }
            for each in devices
        ]
        claim = {
            "metadata": {"name": name, "uid": uid},
            "status": {"allocation": {"devices": {"results": results}}},
        }
        self.server.put(f"{CLAIMS}/{name}", claim)
        return "team", name, uid

    def files(self) -> dict[str, Any]:
        """The claims' CDI files by uid."""
        found = self.claim_dir.glob("birentech.com-claim_*.json") if self.claim_dir.exists() else ()
        files = {}
        for each in found:
            with contextlib.suppress(FileNotFoundError):  # the file has just been removed
                files[each.stem.partition("_")[2]] = json.loads(each.read_text())
        return files

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition that other threads and processes change."""
        with trio.fail_after(patience()):
            while not holds():  # noqa: ASYNC110 - files and other threads set no event
                await trio.sleep(0.01)


async def in_thread(call: Callable[[], Any]) -> Any:
    """What a blocking call of the kubelet's returns."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
