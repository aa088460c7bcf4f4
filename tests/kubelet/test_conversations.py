"""The test kubelet does in each conversation what the real kubelet did."""

from pathlib import Path

import pytest

from tests.kubelet.client import KubeletProcess
from tests.kubelet.conversations import CONVERSATIONS, play, recorded, resource_of

_CHECKPOINT = "kubelet_internal_checkpoint"


class TestKubelet:
    """The test kubelet, as a conversation is played to it."""

    __test__ = False

    def __init__(self, kubelet: KubeletProcess, resource: str) -> None:
        self.resource = resource
        self.directory = kubelet.folder
        self._kubelet = kubelet

    def believed(self) -> list[str]:
        devices = self._kubelet.state()["devices"].get(self.resource, {})
        return sorted(id_ for id_, health in devices.items() if health == "Healthy")

    def admit(self, number: int, count: int) -> str:
        answer = self._kubelet.command(
            "admit", resource=self.resource, count=count, pod=f"default/pod-{number}"
        )
        if answer["ok"]:
            return str(answer["response"]["envs"]["BR_PHY_CARDS"])
        return str(answer["message"])

    def restart(self, *, keeps_checkpoint: bool) -> None:
        self._kubelet.stop()
        if not keeps_checkpoint:
            (self.directory / _CHECKPOINT).unlink(missing_ok=True)
        self._kubelet.start()


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_test_kubelet_answers_as_the_real_one_did(name: str, tmp_path: Path) -> None:
    expected = recorded()[name]
    with KubeletProcess(tmp_path, "--seed", "1", "--dial-timeout", "1") as process:
        assert (
            play(TestKubelet(process, resource_of(name)), CONVERSATIONS[name], expected) == expected
        )
