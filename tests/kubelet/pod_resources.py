"""The kubelet's other socket: it reports which pod holds which device, and which devices are allocatable.

Like the kubelet's, the socket stays on disk when its process ends, and the next process re-creates it.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from tests.kubelet.protos import load

SOCKET = "kubelet.sock"
Allocatable = Callable[[], Mapping[str, Collection[str]] | None]
"""Gives the ids that are allocatable by resource; None: as a kubelet that does not tell (before 1.23)."""
Holders = Callable[[], Mapping[tuple[str, str], str]]
"""Gives the pod (`namespace/name`) that holds a device, by resource and id."""


class PodResources:
    """A `PodResourcesLister` in `folder`, which is made if it is missing."""

    def __init__(
        self,
        folder: Path,
        holders: Holders,
        allocatable: Allocatable = lambda: None,
        on_asked: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.asked = threading.Semaphore(0)
        """Goes up with each question."""
        self.running: set[str] = set()
        """Pods (`namespace/name`) that are listed even if they hold nothing."""
        self._holders = holders
        self._allocatable = allocatable
        self._on_asked = on_asked
        self.claims: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
        """Gives the claims that are believed prepared, by uid, as `DraManager.claims` has them."""
        self._refusal: str | None = None
        self._instead: bytes | None = None
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._server: Any = None

    def start(self) -> None:
        """Serve on a new socket."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SOCKET).unlink(missing_ok=True)
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        methods = {"List": self._list, "GetAllocatableResources": self._list_allocatable}
        handler = load("podresources").handler("PodResourcesLister", methods)
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"unix:{self.folder / SOCKET}")
        self._server.start()

    def stop(self) -> None:
        """Stop serving; questions that are held end. The socket goes, unlike a kubelet's."""
        self._may_answer.set()
        self._server.stop(None).wait()

    def hold(self) -> None:
        """Leave each coming question unanswered until `release`."""
        self._may_answer.clear()

    def release(self) -> None:
        """Answer what is held, and whatever comes."""
        self._may_answer.set()

    def refuse(self, text: str | None) -> None:
        """Answer each question with an error of this text; None: with the truth."""
        self._refusal = text

    def say_instead(self, message: bytes | None) -> None:
        """Answer each question with this message, whatever it is; None: with the truth."""
        self._instead = message

    def _list(self, _request: Any, context: Any) -> Any:
        self.asked.release()
        self._on_asked()
        self._may_answer.wait()
        if self._refusal is not None:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self._refusal)
        if self._instead is not None:
            return SimpleNamespace(SerializeToString=lambda: self._instead)
        protos = load("podresources")
        response = protos.ListPodResourcesResponse()
        pods: dict[str, dict[str, list[str]]] = {pod: {} for pod in sorted(self.running)}
        for (resource, id_), pod in self._holders().items():
            pods.setdefault(pod, {}).setdefault(resource, []).append(id_)
        for pod, devices in pods.items():
            namespace, _, name = pod.partition("/")
            # One container holds nothing, and the devices stand in messages of one each: both occur.
            found = response.pod_resources.add(name=name, namespace=namespace)
            found.containers.add(name="sidecar")
            container = found.containers.add(name="main")
            for resource, ids in devices.items():
                for id_ in ids:
                    container.devices.add(resource_name=resource, device_ids=[id_])
        for entry in self.claims().values():
            for pod in sorted(entry["pods"]):
                _add_claim(response, pod, entry)
        return response

    def _list_allocatable(self, _request: Any, context: Any) -> Any:
        if (allocatable := self._allocatable()) is None:
            context.abort(grpc.StatusCode.UNKNOWN, "API GetAllocatableResources disabled")
            return None
        response = load("podresources").AllocatableResourcesResponse()
        for resource, ids in allocatable.items():
            for id_ in ids:
                response.devices.add(resource_name=resource, device_ids=[id_])
        return response


def _add_claim(response: Any, pod: str, entry: Mapping[str, Any]) -> None:
    """As a kubelet shows it: the names of a claim's devices pile up."""
    namespace, _, name = pod.partition("/")
    container = response.pod_resources.add(name=name, namespace=namespace).containers.add(
        name="main"
    )
    claim = container.dynamic_resources.add(
        claim_name=entry["name"], claim_namespace=entry["namespace"]
    )
    names: list[str] = []
    for device in entry["devices"]:
        names += device["cdi"]
        found = claim.claim_resources.add(
            driver_name="gpu.birentech.com", pool_name=device["pool"], device_name=device["device"]
        )
        for each in names:
            found.cdi_devices.add(name=each)
