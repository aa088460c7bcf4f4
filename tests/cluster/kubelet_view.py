"""The kubelet's view of devices and pods, read from its pod-resources socket through grpcio."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc

from tests.cluster.processes import poll
from tests.kubelet.protos import load

_SOCKET: Final = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
_INTERVAL: Final = 0.012
"""Seconds between two calls: the kubelet accepts 100 a second, of all its callers together."""
_READY: Final = 10.0
"""Seconds until a first answer."""
_RESOURCE: Final = "birentech.com/gpu"


class KubeletView:
    """Calls to the node's kubelet: each thread has a connection, and a new one after a failure."""

    def __init__(self) -> None:
        self._kept = threading.local()

    @contextlib.contextmanager
    def _stub(self) -> Iterator[Any]:
        # A channel waits a second before it reconnects, which is too long after a kubelet restart.
        channel = self._kept.channel = getattr(self._kept, "channel", None) or _new_channel()
        try:
            yield load("podresources").stub(channel, "PodResourcesLister")
        except grpc.RpcError:
            channel.close()
            self._kept.channel = None
            raise

    def allocatable(self, resource: str = _RESOURCE) -> set[str]:
        """The ids that the kubelet counts as healthy now. Raises grpc.RpcError."""
        return self.all_allocatable().get(resource, set())

    def all_allocatable(self) -> dict[str, set[str]]:
        """The ids that the kubelet counts as healthy now, by resource. Raises grpc.RpcError."""
        with self._stub() as stub:
            return _ids(stub)

    def answers(self) -> bool:
        """Whether a kubelet answers."""
        try:
            self.allocatable()
        except grpc.RpcError:
            return False
        return True

    def held(self, resource: str = _RESOURCE) -> dict[str, list[str]]:
        """The ids that each container (`pod/container`) holds, sorted."""
        protos = load("podresources")
        with self._stub() as stub:
            response = stub.List(protos.ListPodResourcesRequest(), timeout=5)
        return {
            f"{pod.name}/{container.name}": sorted(
                id_ for each in container.devices if each.resource_name == resource
                for id_ in each.device_ids
            )
            for pod in response.pod_resources
            for container in pod.containers
        }  # fmt: skip

    def wait_for(self, ids: set[str], resource: str = _RESOURCE, timeout: float = 20.0) -> None:
        """Waits until the kubelet counts exactly these ids."""
        seen: list[set[str]] = []

        def look() -> bool:
            with contextlib.suppress(grpc.RpcError):
                seen[:] = [self.allocatable(resource)]
            return seen == [ids]

        poll(look, f"{resource} {sorted(ids)}", timeout, lambda: seen)

    def wait_until_none_is_held(self) -> None:
        """Waits until no pod holds a device: a deleted one does so until its containers have ended."""
        poll(lambda: not any(self.held().values()), "no device is held", shown=self.held)

    @contextlib.contextmanager
    def gaps(self, ids: set[str], resource: str = _RESOURCE) -> Iterator[list[float]]:
        """The seconds for which ids were missing, one entry for each gap; filled while the block runs."""
        found: list[float] = []
        ready, done = threading.Event(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(ids, resource, found, ready, done))
        watcher.start()
        try:
            # A first call connects, which takes as long as a short gap.
            assert ready.wait(_READY), "the kubelet does not answer"
            yield found
        finally:
            done.set()
            watcher.join()


def _watch(
    ids: set[str],
    resource: str,
    found: list[float],
    ready: threading.Event,
    done: threading.Event,
) -> None:
    since: float | None = None
    with _new_channel() as channel:
        stub = load("podresources").stub(channel, "PodResourcesLister")
        _ids(stub)
        ready.set()
        while not done.wait(_INTERVAL):
            now = time.monotonic()
            missing = not ids <= _ids(stub).get(resource, set())
            if missing and since is None:
                since = now
                found.append(0.0)
            if since is not None:
                found[-1] = now - since
            if not missing:
                since = None


def _new_channel() -> grpc.Channel:
    return grpc.insecure_channel(f"unix:{_SOCKET}", options=_OPTIONS)


def _ids(stub: Any) -> dict[str, set[str]]:
    request = load("podresources").AllocatableResourcesRequest()
    found: dict[str, set[str]] = {}
    for each in stub.GetAllocatableResources(request, timeout=5).devices:
        found.setdefault(each.resource_name, set()).update(each.device_ids)
    return found
