"""The node with a DRA driver on it: the overlay's account, rights, policy and classes, without its pods.

The daemon runs as a process of the test with the token of a pod of the DaemonSet's account, so that the
API server treats it as that pod.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from biren_plugin.core.parse.vendor import DRA_DRIVER
from tests.cluster.api import PATHS, Api, ApiError, Object, place_of
from tests.cluster.host import NodeHost, daemon_on
from tests.cluster.images import BUSYBOX
from tests.cluster.isolation import NODE_NAME, SERVICE_ADDRESS
from tests.cluster.node import Node
from tests.cluster.pods import LOOK, STAY, WHOLE, Inside, container, run_pod
from tests.cluster.processes import poll
from tests.e2e.daemon import DaemonProcess
from tests.manifests.examples import EXAMPLES, objects_of
from tests.manifests.render import NAMESPACE, overlay, pod_of

SLICES: Final = PATHS["ResourceSlice"]
CLAIMS: Final = PATHS["ResourceClaim"].format("default")
CLAIM_FILES: Final = Path("/run/cdi")
DRA_FLAG: Final = "--offer-by=dra"
REGISTERED: Final = "is registered with the kubelet"
ENVIRONMENT: Final = {"KUBERNETES_SERVICE_HOST": SERVICE_ADDRESS, "KUBERNETES_SERVICE_PORT": "443"}
"""Variables that a kubelet sets in each container."""
_FILES: Final = Path("/run/secrets/kubernetes.io/serviceaccount")
_WAIT: Final = 15.0
"""Seconds for steps that take one or two."""


class DraNode:
    """The node's driver as the cluster sees it, and pods that use the driver."""

    def __init__(self, node: Node, host: NodeHost) -> None:
        self.node = node
        self.host = host
        self.api = node.api
        self.daemons: list[DaemonProcess] = []
        """All daemons that were started; the last one is the node's driver."""
        self.account = pod_of(overlay("dra"))["serviceAccountName"]

    def deploy(self) -> None:
        """Creates the overlay's objects, except for the DaemonSet; waits until the policy holds."""
        for each in overlay("dra"):
            if each["kind"] != "DaemonSet":
                path = f"{place_of(each)}/{each['metadata']['name']}"
                if not self.api.exists(path):
                    self.api.make(each)
        poll(self._policy_holds, "the admission policy", _WAIT)

    def _policy_holds(self) -> bool:
        """Whether a token that is bound to no node is refused for that reason; no slice is created."""
        try:
            Api(self.token()).create(f"{SLICES}?dryRun=All", slice_of(NODE_NAME))
        except ApiError as error:
            return "bound to a node" in str(error)
        return False

    def remove(self) -> None:
        """Removes the account's pods with their events, what `deploy` created, and the slices; the namespace stays."""
        self.api.delete(PATHS["Pod"].format(NAMESPACE))
        for each in overlay("dra"):
            if each["kind"] not in ("DaemonSet", "Namespace"):
                self.api.delete(f"{place_of(each)}/{each['metadata']['name']}")
        self.api.delete(SLICES)
        self.api.delete(f"/api/v1/namespaces/{NAMESPACE}/events")

    def start_driver(
        self, *flags: str, environment: Mapping[str, str] | None = None
    ) -> DaemonProcess:
        """Starts a daemon as another pod, and waits until it is registered with the kubelet."""
        self.become_pod(f"driver-{len(self.daemons)}")
        daemon = self._start(DRA_FLAG, *flags, environment=environment)
        daemon.wait_for_line(REGISTERED)
        return daemon

    def start_plugin(self) -> DaemonProcess:
        """Starts a daemon that offers the cards through the device plugin API."""
        return self._start()

    def _start(self, *flags: str, environment: Mapping[str, str] | None = None) -> DaemonProcess:
        daemon = daemon_on(self.host, *flags, environment={**ENVIRONMENT, **(environment or {})})
        self.daemons.append(daemon)
        daemon.start()
        return daemon

    def ensure_driver(self) -> None:
        """Starts a driver unless one runs; a daemon that offers by the plugin ends."""
        for each in self.daemons:
            if each.running and DRA_FLAG not in each.flags:
                each.end()
        if not any(each.running for each in self.daemons):
            self.start_driver()

    def end_drivers(self) -> None:
        """Ends every daemon that runs; an AssertionError if one logged a bug."""
        for daemon in self.daemons:
            if daemon.running:
                daemon.end()
            daemon.assert_no_bug()

    def become_pod(self, name: str) -> str:
        """Creates a pod whose token the next daemon uses; the token."""
        container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}
        place = {"namespace": NAMESPACE, "name": name}
        pod = self.api.make({
            "kind": "Pod",
            "metadata": place,
            "spec": {
                "nodeName": NODE_NAME, "serviceAccountName": self.account,
                "terminationGracePeriodSeconds": 0, "containers": [container],
                # The account goes with the last test: a mount of its token would fail, and an event say so.
                "automountServiceAccountToken": False,
            },
        })  # fmt: skip
        token = self.token({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]})  # fmt: skip
        _FILES.mkdir(parents=True, exist_ok=True)
        (_FILES / "token").write_text(token)
        (_FILES / "ca.crt").write_bytes(self.node.authority.read_bytes())
        return token

    def token(self, bound: Object | None = None) -> str:
        """A token of the driver's account, bound to an object."""
        path = f"{PATHS['ServiceAccount'].format(NAMESPACE)}/{self.account}/token"
        body = {"spec": {"boundObjectRef": bound} if bound else {}}
        return str(self.api.create(path, body)["status"]["token"])

    def slices(self) -> list[Object]:
        """The stored slices of this driver."""
        found = self.api.get(SLICES)["items"]
        return [each for each in found if each["spec"]["driver"] == DRA_DRIVER]

    def hold_one(self, name: str = "holder", **spec: str) -> str:
        """Runs a pod with one whole card; the card's name."""
        return run_pod(self.api, name, container(gpu=1), nodeName=None, **spec)["main"].cards

    def slice_versions(self) -> set[tuple[str, str]]:
        """The name of each stored slice, with its version."""
        return {
            (each["metadata"]["name"], each["metadata"]["resourceVersion"])
            for each in self.slices()
        }

    def devices(self) -> dict[str, Object]:
        """The published devices by the name of their card."""
        return {
            device["attributes"]["card"]["string"]: device
            for each in self.slices()
            for device in each["spec"].get("devices") or ()
        }

    def taints(self, card: str) -> dict[str, Object]:
        """The taints of a card's device by probe."""
        found = self.devices()[card].get("taints") or ()
        return {each["key"].removeprefix(f"{DRA_DRIVER}/"): each for each in found}

    def wait_for_devices(self, count: int) -> None:
        """Waits until so many devices are published."""
        poll(lambda: len(self.devices()) == count, f"{count} devices", _WAIT, self.slices)

    def wait_for_taints(self, card: str, *probes: str) -> dict[str, Object]:
        """The card's taints, once they are of exactly these probes."""
        poll(
            lambda: set(self.taints(card)) == set(probes),
            f"{card} tainted by {probes}", _WAIT, self.devices,
        )  # fmt: skip
        return self.taints(card)

    def start_example(self, name: str) -> list[Object]:
        """Creates the objects of an example; its pods look at their devices and stay."""
        objects = [for_the_node(each) for each in objects_of(EXAMPLES[name])]
        for each in objects:
            self.api.make(each)
        return [each for each in objects if each["kind"] == "Pod"]

    def start(
        self, name: str, claim: Object, command: str = LOOK + STAY, namespace: str = "default"
    ) -> None:
        """Creates a pod with that entry of `resourceClaims`, whose container runs `command`."""
        template = next(
            each for each in objects_of(EXAMPLES["shared-claim"]) if each["kind"] == "Pod"
        )
        pod = for_the_node(template)
        pod["metadata"] |= {"name": name, "namespace": namespace}
        pod["spec"]["resourceClaims"] = [{"name": "cards", **claim}]
        pod["spec"]["containers"][0]["command"] = ["/bin/sh", "-c", command]
        self.api.make(pod)

    def inside(self, name: str, namespace: str = "default") -> Inside:
        """What a pod's container found, once the pod runs."""
        pods = PATHS["Pod"].format(namespace)

        def look() -> str | None:
            if self.api.get(f"{pods}/{name}")["status"]["phase"] != "Running":
                return None
            text = self.api.text("GET", f"{pods}/{name}/log")
            return text if text.endswith("end\n") else None

        found = poll(look, f"the log of {name}", _WAIT, lambda: self.about(name, namespace))
        return Inside.read(found or "")

    def about(self, name: str, namespace: str = "default") -> str:
        """A pod's status and events, for a failing test."""
        events = self.api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        messages = [
            each["message"] for each in events if each["involvedObject"].get("name") == name
        ]
        status = self.api.get(f"{PATHS['Pod'].format(namespace)}/{name}")["status"]
        return f"{status}\n" + "\n".join(messages)

    def health(self, name: str) -> list[tuple[str, str]]:
        """The health and its message of each device in a pod's own status."""
        [status] = self.api.pod(name)["status"]["containerStatuses"]
        return [
            (device["health"], device.get("message", ""))
            for each in status.get("allocatedResourcesStatus", ())
            for device in each["resources"]
        ]

    def end(self, name: str, namespace: str = "default") -> None:
        """Deletes a pod and waits for its end."""
        path = f"{PATHS['Pod'].format(namespace)}/{name}"
        self.api.delete(path)
        poll(lambda: not self.api.exists(path), f"the end of {name}", _WAIT)

    def clean(self) -> None:
        """Deletes every pod, claim and template of the default namespace; waits until no claim file is left."""
        self.api.delete_pods()
        self.api.delete(CLAIMS)
        self.api.delete(PATHS["ResourceClaimTemplate"].format("default"))
        poll(lambda: not claim_files(), "the removal of the claim files", _WAIT, claim_files)


def claim_files() -> list[str]:
    """The names of the claims' CDI files."""
    return sorted(path.name for path in CLAIM_FILES.glob("*.json"))


def for_the_node(found: Object) -> Object:
    """An object of an example, adapted to the node: its image, and a command that reads the devices and stays."""
    found = copy.deepcopy(found)
    if found["kind"] == "Pod":
        found["spec"] |= {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
        for container in found["spec"]["containers"]:
            container |= {
                "image": BUSYBOX,
                "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", LOOK + STAY],
            }
    return found


def slice_of(node: str, driver: str = DRA_DRIVER) -> Object:
    """A slice without devices, as another client might publish it."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"generateName": "made-by-hand-"},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [],
        },
    }


def wait_until_no_plugin_is_counted(node: Node) -> None:
    """Until then the scheduler counts cards of a plugin that has ended, and binds pods for them."""
    poll(
        lambda: node.status()["allocatable"].get(WHOLE, "0") == "0",
        "no card of a plugin is counted",
    )


def wait_until_plugin_is_counted(node: Node, cards: int) -> None:
    """Until then the scheduler gives out the slices that are left of the driver for half a minute."""
    poll(
        lambda: node.status()["allocatable"].get(WHOLE) == f"{cards}",
        "the plugin's cards are counted",
    )
