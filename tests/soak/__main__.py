"""Runs the schedule, compares the kubelet's view with the host's in each pause, prints the figures."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import attrs

from tests.simulated_node import Node
from tests.soak.trouble import Trouble

THREE_RESOURCES = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 4, 7: 4}
EVENTS_BETWEEN_PAUSES = 12
RESTARTS_BETWEEN_PAUSES = 50
WARM_UP = 1 / 3
"""Share of the time before the figures count: each kind of trouble has come by then."""
MEMORY_GROWTH = 2.0
"""MiB that may be added after the warm-up."""
QUIET = 40.0
"""Seconds within which the node must be as before."""


@attrs.frozen
class State:
    """What a process holds at a quiet moment."""

    tasks: int
    descriptors: int
    threads: int
    memory: float

    def __str__(self) -> str:
        """One row of the report."""
        return (
            f"{self.tasks:4} tasks  {self.descriptors:4} descriptors  {self.threads:3} threads  "
            f"{self.memory:6.1f} MiB"
        )


def main() -> int:
    """The command line of the soak; exit status 1 if something grew, or the views differ."""
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--restarts", type=int, help="only restart the kubelet, that often")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        os.environ["TASKS_FILE"] = f"{folder}/tasks"
        with Node(THREE_RESOURCES, sys.executable, "-m", "tests.soak.counted_daemon") as node:
            node.start_daemon("--recover-after=0")
            if arguments.restarts:
                states = restart(node, arguments.restarts)
            else:
                print(f"seed {arguments.seed}", flush=True)
                states = run(node, random.Random(arguments.seed), arguments.seconds)
    return report(states)


def restart(node: Node, count: int) -> list[State]:
    """Restarts the kubelet `count` times; the states after each fifty."""
    states = []
    for number in range(1, count + 1):
        mark = node.kubelet.mark()
        node.kubelet.restart()
        node.wait_for_lists(mark)
        if number % RESTARTS_BETWEEN_PAUSES == 0:
            states.append(settle(node))
            print(f"{number:6} restarts      {states[-1]}", flush=True)
    return states


def run(node: Node, chance: random.Random, seconds: float) -> list[State]:
    """Makes trouble for so long; the states in the pauses after the warm-up."""
    trouble = Trouble(node, chance)
    states: list[State] = []
    events = 0
    until = time.monotonic() + seconds
    warm = until - seconds * (1 - WARM_UP)
    while time.monotonic() < until or len(states) < 2:
        for _ in range(EVENTS_BETWEEN_PAUSES):
            kind = chance.choice(trouble.kinds)
            kind()
            events += 1
        trouble.calm()
        state = settle(node)
        print(f"{events:6} events        {state}", flush=True)
        if time.monotonic() > warm:
            states.append(state)
    return states


def settle(node: Node) -> State:
    """What the daemon holds once the kubelet sees all that the host has, and nothing moves."""
    for resource, count in node.expected.items():
        node.kubelet.wait_for_list(resource, healthy=count, unhealthy=0, timeout=QUIET)
    tasks_file = Path(os.environ["TASKS_FILE"])
    last = None
    deadline = time.monotonic() + QUIET
    while True:
        state = State(
            int(tasks_file.read_text() or 0), node.descriptors(), node.threads(), node.resident()
        )
        counts = (state.tasks, state.descriptors)
        if counts == last or time.monotonic() > deadline:
            return state
        last = counts
        time.sleep(0.3)  # real processes at rest tell nobody that they are


def report(states: list[State]) -> int:
    """Compares the last state with the first."""
    first, last = states[0], states[-1]
    print(f"after the warm-up   {first}\nat the end          {last}")
    growing = [
        f"{name}: {before} -> {after}"
        for name, before, after, more in [
            ("tasks", first.tasks, last.tasks, 0),
            ("descriptors", first.descriptors, last.descriptors, 0),
            ("threads", first.threads, last.threads, 1),
            ("MiB", first.memory, last.memory, MEMORY_GROWTH),
        ]
        if after > before + more
    ]
    print(f"FAILED, it grew: {'; '.join(growing)}" if growing else "flat")
    return 1 if growing else 0


if __name__ == "__main__":
    sys.exit(main())
