"""The kubelet's view of devices, and how it allocates them to containers.

1. A list is the whole truth of its resource: what it leaves out is gone.
2. The last sender wins, whichever of several streams it came on.
3. When a client is disconnected, every device of its resource counts as unhealthy at once;
   after five minutes the resource is dropped.
4. Admission is serial, and carries no deadline: a plugin that hangs blocks every pod.
5. Allocations and the names of resources survive in a checkpoint in the directory; devices do not.
6. A device that has left the list when its Allocate returns is a nil dereference in kubelet
   1.36: this one dies of it too.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from tests.kubelet.plugin_client import PluginClient, rpc_text

DROPPED_AFTER = 300.0
Tell = Callable[..., None]
"""Takes an event's name and its fields."""


class AdmissionError(Exception):
    """The pod is refused, with the text of UnexpectedAdmissionError.

    `details` says why; `code` names the plugin's status, or is None if the kubelet itself refused.
    """

    def __init__(self, details: str, code: str | None = None, reason: str | None = None) -> None:
        super().__init__(f"Allocate failed due to {reason or details}, which is unexpected")
        self.details = details
        self.code = code


class DeviceManager:
    """The kubelet's beliefs and its admission; safe to call from any thread.

    `tell` hears of every list and disconnection, in the order in which beliefs change.
    `panic` is called with a text when a real kubelet would die, and does not return.
    """

    def __init__(
        self,
        tell: Tell,
        panic: Callable[[str], Any],
        seed: int | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self._tell = tell
        self._panic = panic
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._admission = threading.Lock()
        self._endpoints: dict[str, tuple[PluginClient, Mapping[str, bool]]] = {}
        self._stopped: dict[str, float] = {}
        self._devices: dict[str, dict[str, str]] = {}
        self._allocated: dict[str, dict[str, str]] = {}  # the pod, by resource and id
        self._checkpoint = checkpoint
        self._read_checkpoint()

    def connected(self, client: PluginClient, options: Mapping[str, bool]) -> None:
        """Use `client` for its resource from now on."""
        with self._lock:
            self._endpoints[client.resource] = (client, options)
            self._stopped.pop(client.resource, None)

    def listed(self, client: PluginClient, response: Any) -> None:
        """Take a ListAndWatchResponse, even from a client that has been replaced."""
        devices = [
            {"id": d.ID, "health": d.health, "numa": [node.ID for node in d.topology.nodes]}
            for d in response.devices
        ]
        with self._lock:
            self._devices[client.resource] = {d.ID: d.health for d in response.devices}
            self._write_checkpoint()
            self._tell("list", resource=client.resource, stream=client.number, devices=devices)

    def disconnected(self, resource: str) -> None:
        """Note that no plugin serves `resource` any more: its devices count as unhealthy."""
        with self._lock:
            if resource not in self._endpoints:
                return
            self._stopped[resource] = time.monotonic()
            believed = self._devices.get(resource, {})
            self._devices[resource] = dict.fromkeys(believed, "Unhealthy")
            self._tell("disconnected", resource=resource)

    def state(self) -> dict[str, Any]:
        """What would stand in the node's status, and the devices behind it."""
        with self._lock:
            for resource, since in list(self._stopped.items()):
                if time.monotonic() - since > DROPPED_AFTER:
                    self._devices[resource] = {}
            return {
                "devices": {name: dict(devices) for name, devices in self._devices.items()},
                "capacity": {name: len(devices) for name, devices in self._devices.items()},
                "allocatable": {name: len(self._healthy(name)) for name in self._devices},
                "allocated": {name: sorted(ids) for name, ids in self._allocated.items()},
            }

    def admit(
        self,
        resource: str,
        count: int,
        must_include: Iterable[str] = (),
        pod: str = "default/pod",
    ) -> tuple[list[str], dict[str, Any]]:
        """Admit a container that wants `count` devices, and remember which it got.

        `must_include` are devices that the pod holds already, of an init container. Returns
        the ids and the container's response under the schema's names; raises AdmissionError.
        """
        with self._admission:
            ids = self._choose(resource, count, list(must_include))
            self._random.shuffle(ids)
            client, options = self._endpoint(resource)
            containers = self._call("Allocate", client.allocate, [ids])
            if not containers:
                raise AdmissionError("no containers return in allocation response")
            self._check_still_listed(resource, ids)
            if options["pre_start_required"]:
                self._call("PreStartContainer", client.pre_start, ids)
            self.remember(resource, ids, pod)
            return sorted(ids), _as_dict(containers[0])

    def allocate(self, resource: str, requests: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Call Allocate with exactly these ids, one list for each container; remember nothing.

        A kubelet never does this: it is for requests that it would not make.
        """
        client, _ = self._endpoint(resource)
        return [_as_dict(c) for c in self._call("Allocate", client.allocate, requests)]

    def remember(self, resource: str, ids: Iterable[str], pod: str) -> None:
        """A pod holds these devices: from its admission, or from a kubelet's checkpoint."""
        with self._lock:
            self._allocated.setdefault(resource, {}).update(dict.fromkeys(ids, pod))
            self._write_checkpoint()

    def holders(self) -> dict[tuple[str, str], str]:
        """Which pod holds each device, by resource and id."""
        with self._lock:
            return {
                (resource, id_): pod
                for resource, held in self._allocated.items()
                for id_, pod in held.items()
            }

    def allocatable(self) -> dict[str, set[str]]:
        """What `GetAllocatableResources` answers: the healthy devices of each resource."""
        with self._lock:
            return {resource: self._healthy(resource) for resource in self._devices}

    def free(self, resource: str, ids: Iterable[str]) -> None:
        """The pods that held `ids` are gone. The plugin is not told: the API has no call."""
        with self._lock:
            held = self._allocated.get(resource, {})
            for id_ in ids:
                held.pop(id_, None)
            self._write_checkpoint()

    def _read_checkpoint(self) -> None:
        """Which resources there were, and who held what: no device counts before it is listed again."""
        if self._checkpoint is None or not self._checkpoint.exists():
            return
        kept = json.loads(self._checkpoint.read_text() or "{}")
        self._devices = {resource: {} for resource in kept.get("resources", ())}
        self._allocated = kept.get("allocated", {})

    def _write_checkpoint(self) -> None:
        if self._checkpoint is not None:
            kept = {"resources": list(self._devices), "allocated": self._allocated}
            self._checkpoint.write_text(json.dumps(kept))

    def _endpoint(self, resource: str) -> tuple[PluginClient, Mapping[str, bool]]:
        with self._lock:
            if resource not in self._endpoints:
                raise AdmissionError(f"cannot allocate unregistered device {resource}")
            client, options = self._endpoints[resource]
            if resource in self._stopped:
                raise AdmissionError(f"endpoint {client.socket.name} has been stopped")
            return client, options

    def _choose(self, resource: str, count: int, reused: list[str]) -> list[str]:
        chosen = reused[:count]
        needed = count - len(chosen)
        if needed == 0:
            return chosen
        with self._lock:
            if resource not in self._devices:
                raise AdmissionError(f"cannot allocate unregistered device {resource}")
            healthy = self._healthy(resource)
            free = sorted(healthy - self._allocated.get(resource, {}).keys() - set(chosen))
        if not healthy:
            raise AdmissionError(
                f"no healthy devices present; cannot allocate unhealthy devices {resource}"
            )
        if len(free) < needed:
            raise AdmissionError(
                f"requested number of devices unavailable for {resource}. "
                f"Requested: {needed}, Available: {len(free)}"
            )
        self._random.shuffle(free)
        client, options = self._endpoint(resource)
        if options["get_preferred_allocation_available"]:
            available = free + chosen
            self._random.shuffle(available)
            preferred = self._call(
                "GetPreferredAllocation", client.prefer, available, chosen, count
            )
            # The answer is a hint: what cannot be had is passed over, what lacks is made up.
            wanted = [i for i in dict.fromkeys(preferred) if i in free]
            free = wanted + [i for i in free if i not in wanted]
        return chosen + free[:needed]

    def _healthy(self, resource: str) -> set[str]:
        return {i for i, health in self._devices.get(resource, {}).items() if health == "Healthy"}

    def _check_still_listed(self, resource: str, ids: Iterable[str]) -> None:
        with self._lock:
            missing = sorted(set(ids) - set(self._devices[resource]))
        if missing:
            self._panic(f"{missing} of {resource} left the list while their Allocate was in flight")

    @staticmethod
    def _call(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except grpc.RpcError as error:
            text = rpc_text(error)
            if name != "Allocate":
                text = f"device plugin {name} rpc failed with err: {text}"
            raise AdmissionError(error.details(), error.code().name, text) from error
        except ValueError as error:  # grpcio: the channel was closed a moment ago
            text = f"rpc error: code = CANCELLED desc = {error}"
            raise AdmissionError(str(error), "CANCELLED", text) from error


def _as_dict(container: Any) -> dict[str, Any]:
    return dict(
        MessageToDict(
            container,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
    )
