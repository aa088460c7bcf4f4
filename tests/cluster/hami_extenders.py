"""HAMi's part of scheduling: the HAMi scheduler that the caller names, or a stand-in."""

import base64
import json
import os
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Protocol

from tests.cluster.api import PATHS, PODS
from tests.cluster.isolation import NODE_NAME
from tests.cluster.node import Node
from tests.cluster.pods import WHOLE
from tests.cluster.programs import HAMI_VARIABLE
from tests.support.api_server import StandInApiServer
from tests.support.hami_books import Object, Wish
from tests.support.hami_scheduler import HamiScheduler

PROFILE: Final = "hami-scheduler"
_ADDRESS: Final = "127.0.0.1:19443"
_METRICS: Final = "127.0.0.1:19395"
_NAME: Final = "hami"
_IGNORED: Final = {"key": "hami.io/webhook", "operator": "NotIn", "values": ["ignore"]}


class Extender(Protocol):
    """HAMi's scheduler, as kube-scheduler and tests use it."""

    is_real: bool
    profile: str | None
    """The scheduler that a new pod names; None if the webhook adds it."""

    def start(self) -> Object:
        """Starts to serve; its address, as fields of kube-scheduler's configuration."""

    def end(self) -> None:
        """Stops serving."""

    def restart(self) -> None:
        """Restarts: state that is not in the API server is lost."""

    def look(self) -> None:
        """Reads the node, unless the scheduler does so by itself."""


def extender_for(node: Node) -> Extender:
    """The program that the caller names, or the stand-in."""
    program = os.environ.get(HAMI_VARIABLE)
    return GivenScheduler(node, program) if program else StandInExtender(node)


class GivenScheduler:
    """A HAMi scheduler, 2.10 or newer, with the flags and the webhook of its chart."""

    is_real = True
    profile: str | None = None

    def __init__(self, node: Node, program: str) -> None:
        self._node = node
        folder = node.kubeconfig.parent
        self._key, self._certificate = folder / "hami.key", folder / "hami.crt"
        devices = folder / "hami-devices.json"
        devices.write_text(json.dumps({"biren": {"resourceCountName": WHOLE}}))
        self._command = (
            "env", f"KUBECONFIG={node.kubeconfig}", program,
            f"--http_bind={_ADDRESS}", f"--cert_file={self._certificate}", f"--key_file={self._key}",
            f"--scheduler-name={PROFILE}", f"--metrics-bind-address={_METRICS}",
            f"--device-config-file={devices}",
        )  # fmt: skip

    def start(self) -> Object:
        command = [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hami",
            "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(self._key), "-out", str(self._certificate),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        self._run()
        self._node.api.make(_webhook(self._certificate))
        return {
            "urlPrefix": f"https://{_ADDRESS}", "enableHTTPS": True, "tlsConfig": {"insecure": True},
        }  # fmt: skip

    def end(self) -> None:
        self._node.api.delete(f"{PATHS['MutatingWebhookConfiguration']}/{_NAME}")
        self._node.processes.end(_NAME)

    def restart(self) -> None:
        self._node.processes.end(_NAME, signal.SIGKILL)
        self._run()

    def look(self) -> None:
        pass  # it reads the node every 15 s

    def _run(self) -> None:
        self._node.processes.start(_NAME, *self._command)
        self._node.processes.wait_until("HAMi's scheduler", _answers)


def _answers() -> bool:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"https://{_ADDRESS}/healthz", context=unverified, timeout=5):
            return True
    except OSError:
        return False


def _webhook(certificate: Path) -> Object:
    authority = base64.b64encode(certificate.read_bytes()).decode()
    hook = {
        "name": "vgpu.hami.io",
        "clientConfig": {"url": f"https://{_ADDRESS}/webhook", "caBundle": authority},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ],
        "admissionReviewVersions": ["v1beta1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "objectSelector": {"matchExpressions": [_IGNORED]}, "timeoutSeconds": 10,
    }  # fmt: skip
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": _NAME},
        "webhooks": [hook],
    }


class StandInExtender(HamiScheduler):
    """The stand-in for HAMi's scheduler, with the cluster's own API server."""

    is_real = False
    profile: str | None = PROFILE

    def __init__(self, node: Node) -> None:
        super().__init__(StandInApiServer(), NODE_NAME)  # never started
        self.cluster = node.api
        self.now = int(time.time())

    def start(self) -> Object:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return {"urlPrefix": f"http://127.0.0.1:{self.server.server_address[1]}"}

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def look(self) -> None:
        self.tick()

    def read(self, path: str) -> Object:
        found: Object = self.cluster.get(path)
        return found

    def annotate(self, path: str, values: dict[str, str | None]) -> None:
        self.cluster.patch(path, {"metadata": {"annotations": values}})

    def bind(self, name: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
        self.cluster.create(f"{PODS}/{name}/binding", {**binding, "target": target})

    def pods(self) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in self.cluster.get(PODS)["items"]}

    def wish_of(self, pod: Object) -> Wish:
        init, containers = (
            tuple(int(each["resources"].get("limits", {}).get(WHOLE, 0)) for each in group)
            for group in (pod["spec"].get("initContainers", ()), pod["spec"]["containers"])
        )
        return Wish(containers, init)


def _handler(scheduler: StandInExtender) -> type[BaseHTTPRequestHandler]:
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
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

    return Handler
