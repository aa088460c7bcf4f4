"""The real node under the stand-in for HAMi's scheduler, which annotates and binds real pods.

The daemon runs as a process of the test with a token of the overlay's account, bound to a pod, so that its
rights and the admission policy are those of the DaemonSet's pods.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import PATHS, PODS, place_of
from tests.cluster.images import BUSYBOX
from tests.cluster.isolation import NODE_NAME, SERVICE_ADDRESS
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE, start_pod
from tests.cluster.processes import poll
from tests.manifests.render import NAMESPACE, overlay, pod_of
from tests.support.api_server import StandInApiServer
from tests.support.hami_books import Object, Wish
from tests.support.hami_scheduler import CARDS, HANDSHAKE, LOCK, HamiScheduler

ENVIRONMENT: Final = {
    "KUBERNETES_SERVICE_HOST": SERVICE_ADDRESS,
    "KUBERNETES_SERVICE_PORT": "443",
    "BR_GPU_HAMI": "true",
}
PROFILE: Final = "hami-scheduler"
_FILES: Final = Path("/run/secrets/kubernetes.io/serviceaccount")
_WAIT: Final = 20.0


class ClusterHami(HamiScheduler):
    """HAMi's scheduler for the node of the cluster."""

    def __init__(self, node: Node) -> None:
        super().__init__(StandInApiServer(), NODE_NAME)  # which is not started
        self.cluster = node.api
        self._node = node
        self.now = int(time.time())

    def deploy(self) -> None:
        """Creates the overlay's account, rights and policy, and gives daemons a token of the account."""
        objects = overlay("hami")
        for each in objects:
            is_part = each["kind"] != "DaemonSet"
            if is_part and not self.cluster.exists(f"{place_of(each)}/{each['metadata']['name']}"):
                self.cluster.make(each)
        self._forget()
        account = pod_of(objects)["serviceAccountName"]
        body = {
            "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": "hami-plugin"},
            "spec": {
                "nodeName": NODE_NAME, "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}],
            },
        }  # fmt: skip
        uid = self.cluster.make(body)["metadata"]["uid"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "hami-plugin", "uid": uid}
        path = f"{PATHS['ServiceAccount'].format(NAMESPACE)}/{account}/token"
        token = self.cluster.create(path, {"spec": {"boundObjectRef": bound}})["status"]["token"]
        _FILES.mkdir(parents=True, exist_ok=True)
        (_FILES / "token").write_text(token)
        (_FILES / "ca.crt").write_bytes(self._node.authority.read_bytes())

    def remove(self) -> None:
        """Removes what `deploy` created, and HAMi's annotations of the node."""
        self.cluster.delete(f"{PATHS['Pod'].format(NAMESPACE)}/hami-plugin")
        for each in overlay("hami"):
            if each["kind"] not in ("DaemonSet", "Namespace"):
                self.cluster.delete(f"{place_of(each)}/{each['metadata']['name']}")
        self._forget()

    def _forget(self) -> None:
        self.annotate(self._path(), {CARDS: None, HANDSHAKE: None, LOCK: None})

    def read(self, path: str) -> Object:
        found: Object = self.cluster.get(path)
        return found

    def annotate(self, path: str, values: dict[str, str | None]) -> None:
        self.cluster.patch(path, {"metadata": {"annotations": values}})

    def bind(self, name: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME}
        self.cluster.create(
            f"{PODS}/{name}/binding",
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": name},
                "target": target,
            },
        )

    def pods(self) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in self.cluster.get(PODS)["items"]}

    def wish_of(self, pod: Object) -> Wish:
        init, containers = (
            tuple(int(each["resources"].get("limits", {}).get(WHOLE, 0)) for each in group)
            for group in (pod["spec"].get("initContainers", ()), pod["spec"]["containers"])
        )
        return Wish(containers, init)

    def start(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        """Creates a pod as HAMi's webhook leaves it, and binds it."""
        start_pod(self.cluster, name, *containers, nodeName=None, schedulerName=PROFILE, **spec)
        assert self.schedule(name) == "bound"

    @contextlib.contextmanager
    def as_extender(self) -> Iterator[None]:
        """A kube-scheduler with HAMi's profile asks this scheduler, as the chart of HAMi sets it up."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _extender(self))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        extender = {
            "urlPrefix": f"http://127.0.0.1:{server.server_address[1]}", "weight": 1,
            "filterVerb": "filter", "bindVerb": "bind", "nodeCacheCapable": True, "httpTimeout": "30s",
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
        try:
            yield
        finally:
            self._node.processes.end(PROFILE)
            server.shutdown()
            server.server_close()

    def wait_for_report(self) -> None:
        """The plugin has reported its cards; the scheduler takes the list."""
        poll(
            lambda: "Reported" in (self.annotation(HANDSHAKE) or ""), "the report", _WAIT
        )  # fmt: skip
        self.tick()

    def wait_for_release(self) -> None:
        """The node is not locked any more."""
        poll(lambda: self.lock is None, "the lock's release", _WAIT, lambda: self.lock)


def _extender(scheduler: ClusterHami) -> type[BaseHTTPRequestHandler]:
    one_at_a_time = threading.Lock()

    class Extender(BaseHTTPRequestHandler):
        """Answers kube-scheduler: names of fields as in k8s.io/kube-scheduler/extender/v1."""

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with one_at_a_time:
                answer = self._bind(asked) if self.path == "/bind" else self._filter(asked)
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _filter(self, asked: Object) -> Object:
            why = scheduler.choose(asked["Pod"]["metadata"]["name"])
            return (
                {"NodeNames": [], "FailedNodes": {NODE_NAME: why}}
                if why
                else {"NodeNames": [NODE_NAME]}
            )

        def _bind(self, asked: Object) -> Object:
            return {"Error": scheduler.lock_and_bind(asked["PodName"])}

    return Extender
