"""The stand-in API server answers each conversation as the real one did."""

import ssl

import pytest

from tests.cluster_client.api_conversations import (
    CLAIMS,
    CONVERSATIONS,
    NODE,
    NODES,
    PODS,
    play,
    recorded,
)
from tests.support.api_server import StandInApiServer, stand_in_api_server

OFF = ("nodeAllocatableResourceMappings",)
"""Fields of devices whose gate is off by default."""


class StandIn:
    """The stand-in, as a conversation is played to it."""

    def __init__(self, server: StandInApiServer) -> None:
        self.address = ("127.0.0.1", server.port)
        self.tls = ssl.create_default_context(cadata=server.authority.cert_pem.bytes().decode())
        self._tokens = {"ours": server.token, "stranger": server.stranger}

    def token(self, account: str) -> str:
        return self._tokens.get(account, "nobody's")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_stand_in_answers_as_the_real_api_server_did(name: str) -> None:
    with stand_in_api_server(drop=OFF, oldest=50, bookmark_after=0.1) as server:
        server.put(f"{NODES}/{NODE}", {"kind": "Node", "apiVersion": "v1"})
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "default"}}
        at_rest = {"spec": {"nodeName": NODE}, "status": {"phase": "Pending"}}
        server.put(f"{PODS}/recorded", pod | at_rest)
        claim = {"kind": "ResourceClaim", "apiVersion": "resource.k8s.io/v1"}
        server.put(f"{CLAIMS}/recorded", claim | {"metadata": {"namespace": "default"}})
        assert play(StandIn(server), CONVERSATIONS[name]) == recorded()[name]
