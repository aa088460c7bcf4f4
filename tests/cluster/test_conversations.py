"""The real kubelet still answers each conversation as it was recorded."""

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest

from tests.cluster.node import KUBELET_ROOT, Node
from tests.cluster.pods import container, look_inside, refusal_of, start_pod
from tests.cluster.processes import poll
from tests.kubelet.conversations import CONVERSATIONS, RECORDED, play, recorded, resource_of

_FRESH: Final = 0.02
"""Seconds."""


class Beliefs:
    """The kubelet's view of every resource, shared by all conversations: it accepts 100 calls a second."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._one_at_a_time = threading.Lock()
        self._known: dict[str, set[str]] = {}
        self._asked = -_FRESH

    def of(self, resource: str) -> list[str]:
        """The healthy ids, sorted; empty while the kubelet does not answer."""
        with self._one_at_a_time:
            if time.monotonic() - self._asked > _FRESH:
                self._asked = time.monotonic()
                try:
                    self._known = self._node.view.all_allocatable()
                except grpc.RpcError:
                    self._known = {}
            return sorted(self._known.get(resource, ()))


class RealKubelet:
    """The node's kubelet, for conversations."""

    def __init__(self, node: Node, beliefs: Beliefs, resource: str) -> None:
        self.resource = resource
        self._beliefs = beliefs
        self.directory = KUBELET_ROOT / "device-plugins"
        self._node = node

    def believed(self) -> list[str]:
        return self._beliefs.of(self.resource)

    def admit(self, number: int, count: int) -> str:
        name = f"{self.resource.partition('/')[2]}-{number}"
        wanting = container() | {"resources": {"limits": {self.resource: str(count)}}}
        start_pod(self._node.api, name, wanting, hostNetwork=True)
        api = self._node.api

        def decided() -> bool:
            runs = api.pod(name)["status"]["phase"] == "Running"
            return runs or refusal_of(api, name) is not None

        poll(decided, f"{name} is admitted or refused", shown=lambda: api.about(name))
        refusal = refusal_of(api, name)
        return look_inside(api, name).cards if refusal is None else str(refusal["message"])

    def restart(self, *, keeps_checkpoint: bool) -> None:
        self._node.stop_kubelet()
        if not keeps_checkpoint:
            (self.directory / "kubelet_internal_checkpoint").unlink()
        self._node.start_kubelet()


def expected_of(pytestconfig: pytest.Config, name: str) -> list[Any] | None:
    """The recorded answers; None if this session records them."""
    return None if pytestconfig.getoption("write_conversations") else recorded()[name]


@pytest.fixture(scope="module")
def beliefs(node: Node) -> Beliefs:
    """The view of the node's kubelet."""
    return Beliefs(node)


@pytest.fixture(scope="module")
def played(
    node: Node, beliefs: Beliefs, pytestconfig: pytest.Config
) -> dict[str, "Future[list[Any]]"]:
    """Conversations without a kubelet restart, played in parallel: each has a resource of its own."""
    names = [
        name for name, steps in CONVERSATIONS.items()
        if not any(step.startswith("restart") for step in steps)
    ]  # fmt: skip
    with ThreadPoolExecutor(len(names)) as threads:
        return {
            name: threads.submit(
                play, RealKubelet(node, beliefs, resource_of(name)), CONVERSATIONS[name], expected_of(pytestconfig, name),
            )
            for name in names
        }  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_real_kubelet_answers_as_recorded(
    name: str,
    node: Node,
    beliefs: Beliefs,
    played: dict[str, "Future[list[Any]]"],
    pytestconfig: pytest.Config,
) -> None:
    expected = expected_of(pytestconfig, name)
    if name in played:
        seen = played[name].result()
    else:
        seen = play(RealKubelet(node, beliefs, resource_of(name)), CONVERSATIONS[name], expected)
    if expected is None:
        answers = (recorded() if RECORDED.exists() else {}) | {name: seen}
        known = {each: answers[each] for each in CONVERSATIONS if each in answers}
        RECORDED.write_text(json.dumps(known, indent=1) + "\n")
    assert seen == expected or expected is None
