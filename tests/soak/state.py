"""What a process holds at a quiet moment, and whether that has grown."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.support.simulated_node import Node

QUIET_THREADS = 5
IDLE_THREADS_END = 15.0
"""Seconds."""
MEMORY_GROWTH = 3.0
"""MiB that may be added: what one round of every trouble leaves in caches."""


@attrs.frozen
class State:
    """What a daemon's process holds."""

    process: int
    tasks: Sequence[str]
    """Names of trio's tasks, sorted."""
    descriptors: int
    threads: int
    memory: float
    """MiB, resident."""

    @property
    def counts(self) -> tuple[int, int]:
        """What must come to rest before anything is compared."""
        return len(self.tasks), self.descriptors

    def __str__(self) -> str:
        """One row of the report."""
        return (
            f"{len(self.tasks):4} tasks  {self.descriptors:4} descriptors  {self.threads:3} threads  "
            f"{self.memory:6.1f} MiB  process {self.process}"
        )


def read_state(node: Node, folder: Path) -> State:
    """The state of the node's daemon, which names its tasks in `folder`."""
    return State(
        process=node.pid,
        tasks=(folder / f"tasks.{node.pid}").read_text().splitlines(),
        descriptors=node.descriptors(),
        threads=_threads(node),
        memory=node.resident(),
    )


def _threads(node: Node) -> int:
    """The daemon's threads, once those of calls that hung have ended: trio keeps an idle one for ten seconds."""
    deadline = time.monotonic() + IDLE_THREADS_END
    while (count := node.threads()) > QUIET_THREADS and time.monotonic() < deadline:
        time.sleep(0.5)  # no event shows the end of another process's thread
    return count


def growth(states: Sequence[State]) -> list[str]:
    """What the last state holds more than the first; a sentence for each."""
    first, last = states[0], states[-1]
    more = Counter(last.tasks) - Counter(first.tasks)
    grown = [f"tasks: {', '.join(more.elements())}"] if len(last.tasks) > len(first.tasks) else []
    return grown + [
        f"{name}: {before:.4g} -> {after:.4g}"
        for name, before, after, allowed in [
            ("descriptors", first.descriptors, last.descriptors, 0),
            ("threads", first.threads, last.threads, 1),
            ("MiB", first.memory, last.memory, MEMORY_GROWTH),
        ]
        if after > before + allowed
    ]
