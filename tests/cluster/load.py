"""A steady load of short pods with one card each, and the outcome of each pod."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from tests.cluster.api import PODS, Api
from tests.cluster.pods import container, refusal_of, start_pod
from tests.cluster.processes import poll

RATE: Final = 9.0
"""Pods a second."""
MOST: Final = 12
"""The limit of pods that have not ended, fewer than there are cards: a busy machine may not keep up."""
_ENDED: Final = {"Succeeded", "Failed"}


@attrs.define
class Outcome:
    """The names of pods that ran, and the message of each refused pod by its name."""

    ran: set[str] = attrs.field(factory=set)
    refused: dict[str, str] = attrs.field(factory=dict)

    @property
    def total(self) -> int:
        """Pods that ended."""
        return len(self.ran) + len(self.refused)

    def wait_for_another(self) -> None:
        """Waits until one more pod has run, while the load goes on."""
        before = len(self.ran)
        poll(lambda: len(self.ran) > before, "another pod of the load that ran")


@contextmanager
def pod_load(api: Api, prefix: str) -> Iterator[Outcome]:
    """Creates pods while the block runs; the outcome is complete after the block."""
    outcome = Outcome()
    done = threading.Event()
    load = _Load(api, prefix, outcome)
    worker = threading.Thread(target=load.run, args=(done,))
    worker.start()
    try:
        yield outcome
    finally:
        done.set()
        worker.join()
    poll(load.is_over, f"the end of the pods {prefix}", 90.0)


class _Load:
    """Creates pods, and deletes those that ended, so that the list of pods stays short."""

    def __init__(self, api: Api, prefix: str, outcome: Outcome) -> None:
        self._api = api
        self._prefix = prefix
        self._outcome = outcome
        self._created = 0

    def run(self, done: threading.Event) -> None:
        due = time.monotonic()
        while not done.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / RATE, time.monotonic())
            if len(self.look()) < MOST:
                name = f"{self._prefix}-{self._created}"
                # The host's network, since creating network interfaces is not part of this test.
                start_pod(self._api, name, container(gpu=1, stays=False), hostNetwork=True)
                self._created += 1

    def look(self) -> list[Any]:
        """The pods that have not ended; the outcome of the others is recorded."""
        unfinished = []
        for pod in self._api.get(PODS)["items"]:
            name, status = pod["metadata"]["name"], pod["status"]
            if not name.startswith(f"{self._prefix}-"):
                continue
            if status.get("phase") not in _ENDED:
                unfinished.append(pod)
                continue
            if status["phase"] == "Succeeded":
                self._outcome.ran.add(name)
                self._api.delete(f"{PODS}/{name}")
            else:
                self._note_refusal(name, status.get("message") or _why_ended(status))
        return unfinished

    def is_over(self) -> bool:
        """Whether every pod has ended; one that the kubelet says it refused need not have the status."""
        for pod in self.look():
            name = pod["metadata"]["name"]
            if refusal := refusal_of(self._api, name):
                self._note_refusal(name, refusal["message"])
        return not self.look()

    def _note_refusal(self, name: str, message: str) -> None:
        self._outcome.refused[name] = message
        self._api.delete(f"{PODS}/{name}")


def _why_ended(status: Any) -> str:
    """Why the container of a pod ended that was not refused."""
    return "; ".join(
        f"{ended['reason']}: {ended.get('message', ended['exitCode'])}"
        for each in status.get("containerStatuses", ())
        if (ended := each["state"].get("terminated"))
    )
