"""The real node under HAMi: its scheduler, if one is given, else the stand-in, beside a kube-scheduler.

The daemon runs as a process of the test with a token of the overlay's account, bound to a pod, so that its
rights and the admission policy are those of the DaemonSet's pods.
"""

import json
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import PATHS, PODS, place_of
from tests.cluster.hami_extenders import PROFILE, extender_for
from tests.cluster.images import BUSYBOX
from tests.cluster.isolation import NODE_NAME, SERVICE_ADDRESS
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE, start_pod
from tests.cluster.processes import poll
from tests.manifests.render import NAMESPACE, overlay, pod_of
from tests.support.hami_books import read
from tests.support.hami_scheduler import ALLOCATED, CARDS, HANDSHAKE, LOCK

ENVIRONMENT: Final = {
    "KUBERNETES_SERVICE_HOST": SERVICE_ADDRESS,
    "KUBERNETES_SERVICE_PORT": "443",
    "BR_GPU_HAMI": "true",
}
_FILES: Final = Path("/run/secrets/kubernetes.io/serviceaccount")
_WAIT: Final = 30.0
"""Seconds; HAMi reads the node every 15."""


class ClusterHami:
    """HAMi in the cluster, and the objects that the plugin needs."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._api = node.api
        self.scheduler = extender_for(node)

    def start(self) -> None:
        """Deploys the overlay without its DaemonSet, and starts HAMi."""
        self._deploy()
        self.forget()
        endpoint = self.scheduler.start()
        extender = {
            **endpoint, "weight": 1, "filterVerb": "filter", "bindVerb": "bind",
            "nodeCacheCapable": True, "httpTimeout": "30s",
            "managedResources": [{"name": WHOLE, "ignoredByScheduler": True}],
        }  # fmt: skip
        configuration = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": str(self._node.kubeconfig)},
            "profiles": [{"schedulerName": PROFILE}],
            "extenders": [extender],
        }
        file = self._node.kubeconfig.with_name("hami-scheduler.json")
        file.write_text(json.dumps(configuration))
        self._node.processes.start(
            PROFILE, "kube-scheduler", f"--config={file}", "--secure-port=0",
            f"--authentication-kubeconfig={self._node.kubeconfig}",
            f"--authorization-kubeconfig={self._node.kubeconfig}",
        )  # fmt: skip

    def _deploy(self) -> None:
        objects = overlay("hami")
        for each in objects:
            is_part = each["kind"] != "DaemonSet"
            if is_part and not self._api.exists(f"{place_of(each)}/{each['metadata']['name']}"):
                self._api.make(each)
        account = pod_of(objects)["serviceAccountName"]
        body = {
            "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": "hami-plugin"},
            "spec": {
                "nodeName": NODE_NAME, "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}],
            },
        }  # fmt: skip
        uid = self._api.make(body)["metadata"]["uid"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "hami-plugin", "uid": uid}
        path = f"{PATHS['ServiceAccount'].format(NAMESPACE)}/{account}/token"
        token = self._api.create(path, {"spec": {"boundObjectRef": bound}})["status"]["token"]
        _FILES.mkdir(parents=True, exist_ok=True)
        (_FILES / "token").write_text(token)
        (_FILES / "ca.crt").write_bytes(self._node.authority.read_bytes())

    def end(self) -> None:
        """Ends HAMi, and removes what `start` created."""
        self._node.processes.end(PROFILE)
        self.scheduler.end()
        self._api.delete(f"{PATHS['Pod'].format(NAMESPACE)}/hami-plugin")
        for each in overlay("hami"):
            if each["kind"] not in ("DaemonSet", "Namespace"):
                self._api.delete(f"{place_of(each)}/{each['metadata']['name']}")
        self.forget()

    def forget(self) -> None:
        """Removes the plugin's annotations from the node, as before its first report."""
        values = {CARDS: None, HANDSHAKE: None, LOCK: None}
        self._api.patch(_path(), {"metadata": {"annotations": values}})

    def annotation(self, name: str, pod: str | None = None) -> str | None:
        """An annotation of the node, or of a pod."""
        value = self._api.get(_path(pod))["metadata"].get("annotations", {}).get(name)
        return None if value is None else str(value)

    @property
    def lock(self) -> str | None:
        """HAMi's lock on the node."""
        return self.annotation(LOCK)

    def record(self, name: str) -> list[list[str]]:
        """The cards that HAMi recorded for a pod, by container, init containers first."""
        return read(self.annotation(ALLOCATED, name) or "")

    def create(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        """Creates a pod for HAMi to schedule."""
        spec = {"nodeName": None, "schedulerName": self.scheduler.profile, **spec}
        start_pod(self._api, name, *containers, **spec)

    def wait_for_list(self, *, healthy: int) -> None:
        """Waits until HAMi has read a list with so many healthy cards."""

        def look() -> bool:
            self.scheduler.look()
            cards = self.annotation(CARDS) or "[]"
            return sum(each["health"] for each in json.loads(cards)) == healthy and (
                "Requesting" in (self.annotation(HANDSHAKE) or "")
            )

        # The daemon writes the list and `Reported` together; HAMi writes `Requesting` when it reads them.
        poll(look, f"a list of {healthy} healthy cards that HAMi has read", _WAIT)

    def wait_for_release(self) -> None:
        """Waits until the node is not locked."""
        poll(lambda: self.lock is None, "the lock's release", _WAIT, lambda: self.lock)


def _path(pod: str | None = None) -> str:
    return f"/api/v1/nodes/{NODE_NAME}" if pod is None else f"{PODS}/{pod}"
