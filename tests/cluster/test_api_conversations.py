"""The real API server still answers each conversation as it was recorded."""

import json
import signal
import ssl
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster.api import ADMIN_TOKEN, PORT, Api
from tests.cluster.node import Node
from tests.cluster.processes import poll
from tests.cluster_client.api_conversations import (
    CLAIMS,
    CONVERSATIONS,
    NODE,
    NODES,
    PODS,
    RECORDED,
    SLICES,
    TOO_OLD,
    play,
    recorded,
)

ACCOUNT: Final = "/api/v1/namespaces/default/serviceaccounts/default"
CLAIM: Final = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "ResourceClaim",
    "metadata": {"name": "recorded"},
    "spec": {"devices": {}},
}
POD: Final = {
    "metadata": {"name": "recorded"},
    "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "nothing"}]},
}


class RealApiServer:
    """The node's API server, for conversations."""

    address = ("127.0.0.1", PORT)

    def __init__(self, api: Api) -> None:
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        stranger: str = api.create(f"{ACCOUNT}/token", {"spec": {}})["status"]["token"]
        self._tokens = {"ours": ADMIN_TOKEN, "stranger": stranger}

    def token(self, account: str) -> str:
        return self._tokens.get(account, "nobody's")


@pytest.fixture(scope="module")
def with_objects(node: Node) -> Iterator[Api]:
    """An API server with a node that has no kubelet, and a claim."""
    api = node.api
    api.create(NODES, {"metadata": {"name": NODE}})
    poll(
        lambda: is_settled(api),
        "the controllers' first changes of a new node",
        shown=lambda: api.get(f"{NODES}/{NODE}"),
    )
    api.create(CLAIMS, CLAIM)
    yield api
    for path in (f"{CLAIMS}/recorded", f"{NODES}/{NODE}"):
        api.delete(path)


@pytest.fixture
def server(with_objects: Api) -> Iterator[RealApiServer]:
    """The API server with a pod; the changes of a conversation are undone after it."""
    api = with_objects
    api.create(PODS, POD)
    yield RealApiServer(api)
    for path in (f"{PODS}/recorded", f"{SLICES}/recorded", f"{SLICES}/other"):
        api.delete(path)
    api.patch(f"{NODES}/{NODE}", {"metadata": {"annotations": {"test/a": None, "test/b": None}}})


def is_settled(api: Api) -> bool:
    """Whether the controllers have made their first changes of a new node."""
    found = api.get(f"{NODES}/{NODE}")
    annotations, spec = found["metadata"].get("annotations", {}), found["spec"]
    return "node.alpha.kubernetes.io/ttl" in annotations and not spec.get("taints")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_real_api_server_answers_as_recorded(
    name: str, server: RealApiServer, node: Node, pytestconfig: pytest.Config
) -> None:
    if name == TOO_OLD:
        # A server that has just started knows no earlier versions.
        node.processes.end("kube-apiserver", signal.SIGKILL)
        node.start_api_server()
        node.wait_for_api_server()
    answers = recorded() if RECORDED.exists() else {}
    seen = play(server, CONVERSATIONS[name])
    if pytestconfig.getoption("write_conversations"):
        answers[name] = seen
        known = {each: answers[each] for each in CONVERSATIONS if each in answers}
        RECORDED.write_text(json.dumps(known, indent=1) + "\n")
    assert seen == answers[name]
