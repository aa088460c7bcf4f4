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
_ENDED: Final = {"Succeeded", "Failed"}


@attrs.define
class Outcome:
    """How the pods ended: those that ran, and the message of each that was refused, by name."""

    ran: set[str] = attrs.field(factory=set)
    refused: dict[str, str] = attrs.field(factory=dict)

    @property
    def total(self) -> int:
        """Pods that were created."""
        return len(self.ran) + len(self.refused)


@contextmanager
def pod_load(api: Api, prefix: str) -> Iterator[Outcome]:
    """Creates pods while the block runs; the outcome is complete after it."""
    outcome = Outcome()
    done = threading.Event()
    created: list[str] = []
    worker = threading.Thread(target=_create, args=(api, prefix, created, done))
    worker.start()
    try:
        yield outcome
    finally:
        done.set()
        worker.join()
    poll(lambda: _all_ended(api, created), f"the end of {len(created)} pods", 90.0)
    for pod in _pods(api, created):
        status = pod["status"]
        if status["phase"] == "Succeeded":
            outcome.ran.add(pod["metadata"]["name"])
        else:
            outcome.refused[pod["metadata"]["name"]] = status.get("message", "no message")


def _create(api: Api, prefix: str, created: list[str], done: threading.Event) -> None:
    started = time.monotonic()
    while not done.wait(max(0.0, started + len(created) / RATE - time.monotonic())):
        name = f"{prefix}-{len(created)}"
        # The host's network, because a load of network interfaces is not what is tried here.
        start_pod(api, name, container(gpu=1, stays=False), hostNetwork=True)
        created.append(name)


def _pods(api: Api, names: list[str]) -> list[Any]:
    wanted = set(names)
    return [pod for pod in api.get(PODS)["items"] if pod["metadata"]["name"] in wanted]


def _all_ended(api: Api, names: list[str]) -> bool:
    return all(pod["status"].get("phase") in _ENDED for pod in _pods(api, names))
