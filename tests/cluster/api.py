"""A client of the cluster's API server, with an administrator's token."""

import contextlib
import http.client
import json
import ssl
import threading
import weakref
from typing import Any, Final

from tests.cluster.isolation import NODE_NAME
from tests.cluster.processes import poll

PORT: Final = 443
"""The port of the Kubernetes service: pods reach the API server without kube-proxy."""
ADMIN_TOKEN: Final = "admin-of-the-test-cluster"
Object = dict[str, Any]
_TIMEOUT: Final = 20.0
PODS: Final = "/api/v1/namespaces/default/pods"
PATHS: Final = {
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ValidatingAdmissionPolicy": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    ),
    "ValidatingAdmissionPolicyBinding": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    ),
    "MutatingWebhookConfiguration": (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    ),
    "DeviceClass": "/apis/resource.k8s.io/v1/deviceclasses",
    "ResourceClaim": "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaims",
    "ResourceClaimTemplate": "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaimtemplates",
    "ResourceSlice": "/apis/resource.k8s.io/v1/resourceslices",
}
"""The path of each kind's objects, with a placeholder for the namespace."""


def _close(connections: list[http.client.HTTPSConnection]) -> None:
    for each in connections:
        each.close()


def place_of(found: Object) -> str:
    """The path of the list that contains an object."""
    return PATHS[found["kind"]].format(found["metadata"].get("namespace", "default"))


class ApiError(Exception):
    """The API server's refusal, with its status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """Calls: each thread has one kept connection, and a new one after the server went away."""

    def __init__(self, token: str = ADMIN_TOKEN) -> None:
        self._token = token
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        # The certificate is self-signed, in a private network.
        self._tls.verify_mode = ssl.CERT_NONE
        self._kept = threading.local()
        self._all: list[http.client.HTTPSConnection] = []
        weakref.finalize(self, _close, self._all)

    def text(self, method: str, path: str, body: object = None, kind: str = "json") -> str:
        """The answer's body. Raises ApiError, or OSError if no server answers."""
        content = json.dumps(body) if body is not None else None
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": f"application/{kind}"}
        connection = getattr(self._kept, "connection", None)
        self._kept.connection = None
        if connection is not None and method != "POST":  # which must not be sent twice
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self._ask(connection, method, path, content, headers)
        if connection is not None:
            connection.close()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", PORT, timeout=_TIMEOUT, context=self._tls
        )
        self._all.append(connection)
        return self._ask(connection, method, path, content, headers)

    def _ask(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: str | None,
        headers: dict[str, str],
    ) -> str:
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read().decode(errors="replace")
        except BaseException:
            connection.close()
            raise
        self._kept.connection = connection
        if answer.status >= 300:
            raise ApiError(answer.status, content)
        return content

    def get(self, path: str) -> Any:
        """An object or a list."""
        return json.loads(self.text("GET", path))

    def exists(self, path: str) -> bool:
        """Whether the API server answers and has that object."""
        try:
            self.text("GET", path)
        except (ApiError, OSError):
            return False
        return True

    def create(self, path: str, body: Object) -> Any:
        """Creates an object in the list `path`."""
        return json.loads(self.text("POST", path, body))

    def make(self, found: Object) -> Any:
        """Creates an object at the path of its kind."""
        return self.create(place_of(found), found)

    def put(self, path: str, body: Object) -> Any:
        """Replaces an object."""
        return json.loads(self.text("PUT", path, body))

    def patch(self, path: str, body: Object) -> Any:
        """Merges `body` into an object."""
        return json.loads(self.text("PATCH", path, body, "merge-patch+json"))

    def delete(self, path: str) -> None:
        """Deletes an object or a whole list, without grace; harmless if it is gone."""
        try:
            self.text("DELETE", path, {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    def pod(self, name: str) -> Any:
        """A pod of the default namespace."""
        return self.get(f"{PODS}/{name}")

    def bind(self, name: str) -> None:
        """Binds a pod of the default namespace to the node, as a scheduler does."""
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME}
        self.create(f"{PODS}/{name}/binding", {"metadata": {"name": name}, "target": target})

    def log(self, name: str, container: str = "main") -> str:
        """What a container printed."""
        return self.text("GET", f"{PODS}/{name}/log?container={container}")

    def wait_for_phase(self, name: str, *phases: str, timeout: float = 30.0) -> Any:
        """The pod in one of these phases."""

        def look() -> Any:
            pod = self.pod(name)
            return pod if pod["status"].get("phase") in phases else None

        return poll(look, f"{name} {'/'.join(phases)}", timeout, lambda: self.about(name))

    def about(self, name: str) -> str:
        """A pod's status and events, for a failing test."""
        messages = [each["message"] for each in self.events(name)]
        return json.dumps(self.pod(name)["status"], indent=1) + "\n" + "\n".join(messages)

    def events(self, name: str) -> list[Object]:
        """The events about a pod of the default namespace."""
        query = f"fieldSelector=involvedObject.name={name}"
        found: list[Object] = self.get(f"/api/v1/namespaces/default/events?{query}")["items"]
        return found

    def delete_pods(self) -> None:
        """Deletes every pod of the default namespace; waits until the kubelet has ended them."""
        self.delete(PODS)
        poll(lambda: not self.get(PODS)["items"], "the end of every pod", 40.0)
