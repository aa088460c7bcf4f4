"""The real kubelet still does in each conversation what was recorded of it."""

import json

import grpc
import pytest

from tests.cluster.node import KUBELET_ROOT, Node
from tests.cluster.pods import container, look_inside, start_pod
from tests.kubelet.conversations import CONVERSATIONS, RECORDED, play, recorded, resource_of


class RealKubelet:
    """The node's kubelet, as a conversation is played to it."""

    def __init__(self, node: Node, resource: str) -> None:
        self.resource = resource
        self.directory = KUBELET_ROOT / "device-plugins"
        self._node = node

    def believed(self) -> list[str]:
        try:
            return sorted(self._node.view.allocatable(self.resource))
        except grpc.RpcError:
            return []

    def admit(self, number: int, count: int) -> str:
        name = f"pod-{number}"
        wanting = container() | {"resources": {"limits": {self.resource: str(count)}}}
        start_pod(self._node.api, name, wanting, hostNetwork=True)
        status = self._node.api.wait_for_phase(name, "Running", "Failed")["status"]
        if status["phase"] == "Running":
            return look_inside(self._node.api, name).cards
        return str(status["message"]).removeprefix("Pod was rejected: ")

    def restart(self, *, keeps_checkpoint: bool) -> None:
        self._node.stop_kubelet()
        if not keeps_checkpoint:
            (self.directory / "kubelet_internal_checkpoint").unlink()
        self._node.start_kubelet()


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_real_kubelet_answers_as_recorded(
    name: str, node: Node, pytestconfig: pytest.Config
) -> None:
    writes = pytestconfig.getoption("write_conversations")
    answers = recorded() if RECORDED.exists() else {}
    kubelet = RealKubelet(node, resource_of(name))
    seen = play(kubelet, CONVERSATIONS[name], None if writes else answers[name])
    if writes:
        answers[name] = seen
        text = json.dumps(
            {each: answers[each] for each in CONVERSATIONS if each in answers}, indent=1
        )
        RECORDED.write_text(text + "\n")
    assert seen == answers[name]
