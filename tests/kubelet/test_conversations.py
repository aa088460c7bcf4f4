"""The test kubelet does in each conversation what the real kubelet did."""

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
            "admit", resource=self.resource, count=count, pod=f"{self.resource}-{number}"
        )
        if answer["ok"]:
            return str(answer["response"]["envs"]["BR_PHY_CARDS"])
        return str(answer["message"])

    def restart(self, *, keeps_checkpoint: bool) -> None:
        self._kubelet.stop()
        if not keeps_checkpoint:
            (self.directory / _CHECKPOINT).unlink(missing_ok=True)
        self._kubelet.start()


@contextlib.contextmanager
def new_kubelet() -> Iterator[KubeletProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="br") as folder,
        KubeletProcess(Path(folder), "--seed", "1", "--dial-timeout", "1") as process,
    ):
        yield process


def play_alone(name: str) -> list[Any]:
    with new_kubelet() as process:
        return play_to(process, name)


def play_to(process: KubeletProcess, name: str) -> list[Any]:
    return play(TestKubelet(process, resource_of(name)), CONVERSATIONS[name], recorded()[name])


@pytest.fixture(scope="module")
def played() -> dict[str, "Future[list[Any]]"]:
    """All conversations, in parallel, since they mostly wait: to one kubelet where it does not restart."""
    with new_kubelet() as process, ThreadPoolExecutor(len(CONVERSATIONS)) as threads:
        return {
            name: threads.submit(play_alone, name)
            if any(step.startswith("restart") for step in steps)
            else threads.submit(play_to, process, name)
            for name, steps in CONVERSATIONS.items()
        }


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_test_kubelet_answers_as_the_real_one_did(
    name: str, played: dict[str, "Future[list[Any]]"]
) -> None:
    assert played[name].result() == recorded()[name]
