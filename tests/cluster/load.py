"""A steady load of short pods with one card each, and what became of each of them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from tests.cluster.api import PODS, Api
from tests.cluster.pods import container, start_pod
from tests.cluster.processes import poll

RATE: Final = 9.0
"""Pods a second."""
MOST: Final = 12
"""Pods that have not ended, on a machine that cannot keep up: fewer than there are cards."""
_ENDED: Final = {"Succeeded", "Failed"}


@attrs.define
class Outcome:
    """How the pods ended: those that ran, and the message of each that was refused, by name."""

    ran: set[str] = attrs.field(factory=set)
    refused: dict[str, str] = attrs.field(factory=dict)

    @property
    def total(self) -> int:
        """Pods that ended."""
        return len(self.ran) + len(self.refused)


@contextmanager
def pod_load(api: Api, prefix: str) -> Iterator[Outcome]:
    """Creates pods while the block runs; the outcome is complete after it."""
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
    poll(lambda: not load.look(), f"the end of the pods {prefix}", 90.0)


class _Load:
    """Creates pods, and deletes those that ended: each look is at a short list."""

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
                # The host's network, because a load of network interfaces is not what is tried here.
                start_pod(self._api, name, container(gpu=1, stays=False), hostNetwork=True)
                self._created += 1

    def look(self) -> list[Any]:
        """The pods that have not ended; what became of the others is noted."""
        going_on = []
        for pod in self._api.get(PODS)["items"]:
            name, status = pod["metadata"]["name"], pod["status"]
            if not name.startswith(f"{self._prefix}-"):
                continue
            if status.get("phase") not in _ENDED:
                going_on.append(pod)
                continue
            if status["phase"] == "Succeeded":
                self._outcome.ran.add(name)
            else:
                self._outcome.refused[name] = status.get("message", "no message")
            self._api.delete(f"{PODS}/{name}")
        return going_on
