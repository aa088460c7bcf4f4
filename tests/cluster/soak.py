"""`python -m tests.cluster.soak SECONDS SEED`: random events on a real node, no card in two containers.

Each event is printed. The exit status is 1 if a card is in two containers, if a refusal has no
explanation, or if at the end the kubelet does not count every card.
"""

import os
import random
import re
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import PODS
from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.pods import container, look_inside, start_pod
from tests.cluster.processes import poll
from tests.cluster.programs import STATE_VARIABLE
from tests.e2e.daemon import DaemonProcess

GPUS: Final = 12
EXPLAINED: Final = (
    "no healthy devices present|requested number of devices unavailable|has been stopped|rpc error"
    "|Node didn't have enough resource"
)
"""Messages of explained refusals: the daemon or kubelet was not running, or every card is held or faulty."""
LACKING: Final = r"/dev/biren/(card_\d+): no such file"
"""The kubelet's message about a container whose device node vanished between admission and start."""
_WEIGHTS: Final = {
    "pod": 12, "end pod": 8, "hand over": 3, "pull node": 3, "put node back": 3,
    "split": 2, "join": 2, "restart kubelet": 1, "kill containerd": 1,
}  # fmt: skip


class SoakFailed(Exception):
    """A rule of the soak is broken."""


class Soak:
    """The node, its host, the serving daemon, and the cards of each pod by the pod's name."""

    def __init__(self, node: Node, host: NodeHost, randomness: random.Random) -> None:
        self._node = node
        self._host = host
        self._random = randomness
        self._pods: dict[str, set[str]] = {}
        self._pulled: set[str] = set()
        self._split: set[int] = set()
        self._daemon = self._new_daemon()
        self.counts: Counter[str] = Counter()

    def take(self, event: str) -> None:
        """Triggers one event. Raises SoakFailed."""
        self.counts[event] += 1
        match event:
            case "pod":
                self._start_pod(f"pod-{self.counts[event]}")
            case "end pod" if self._pods:
                self._end_pod(self._random.choice(sorted(self._pods)))
            case "hand over":
                successor = self._new_daemon()
                self._daemon.end(self._random.choice([signal.SIGTERM, signal.SIGKILL]))
                self._daemon = successor
            case "pull node":
                if whole := self._cards():
                    self._pulled.add(card := self._random.choice(whole))
                    self._host.pull_node(card)
            case "put node back" if self._pulled:
                self._host.put_node_back(self._pulled.pop())
            case "split":
                gpu = self._random.randrange(GPUS)
                if gpu not in self._split and not self._in_use(gpu):
                    self._split.add(gpu)
                    self._host.split(gpu, 2)
            case "join" if self._split:
                self._host.split(self._split.pop(), 1)
            case "restart kubelet":
                self._node.restart_kubelet()
            case "kill containerd":
                self._node.processes.end("containerd", signal.SIGKILL)
                self._node.containerd.start()

    def settle(self) -> None:
        """Ends pods and faults; then every card must count. Raises SoakFailed, AssertionError."""
        for name in list(self._pods):
            self._end_pod(name)
        for card in self._pulled:
            self._host.put_node_back(card)
        for gpu in self._split:
            self._host.split(gpu, 1)
        self._node.view.wait_for(
            {card for gpu in range(GPUS) for card in self._host.cards_of(gpu)}, timeout=60.0
        )
        if bugs := self._daemon.matching("Traceback|on a bug"):
            raise SoakFailed(f"the daemon's log: {bugs}")
        self._daemon.end()

    def _start_pod(self, name: str) -> None:
        start_pod(self._node.api, name, container(gpu=self._random.choice([1, 1, 2])))
        about = partial(self._node.api.about, name)
        status = poll(lambda: self._decided(name), f"{name} runs or is refused", 60.0, about)
        if status["phase"] == "Pending":  # it would wait until the device node is back
            self._node.api.delete(f"{PODS}/{name}")
            self.counts["node gone"] += 1
            return
        if status["phase"] == "Failed":
            self._node.api.delete(f"{PODS}/{name}")
            self.counts["refused"] += 1
            if not re.search(EXPLAINED, message := status.get("message", "")):
                raise SoakFailed(f"{name} was refused without an explanation: {message}")
            return
        cards = set(look_inside(self._node.api, name).cards.split(","))
        for other, theirs in self._pods.items():
            if both := cards & theirs:
                raise SoakFailed(f"{sorted(both)} is in {name} and in {other}")
        self._pods[name] = cards

    def _decided(self, name: str) -> Any:
        """The status of a pod that runs, is refused, or was admitted while one of its device nodes vanished."""
        status = self._node.api.pod(name)["status"]
        waiting = [each["state"].get("waiting", {}) for each in status.get("containerStatuses", ())]
        lacking = re.findall(LACKING, " ".join(each.get("message", "") for each in waiting))
        is_decided = status["phase"] in ("Running", "Failed") or self._pulled & {*lacking}
        return status if is_decided else None

    def _end_pod(self, name: str) -> None:
        self._node.api.delete(f"{PODS}/{name}")
        poll(lambda: not self._node.api.exists(f"{PODS}/{name}"), f"the end of {name}", 60.0)
        del self._pods[name]

    def _cards(self) -> list[str]:
        cards = {
            card for gpu in set(range(GPUS)) - self._split for card in self._host.cards_of(gpu)
        }
        return sorted(cards - self._pulled)

    def _in_use(self, gpu: int) -> bool:
        busy = self._pulled.union(*self._pods.values())
        return not busy.isdisjoint(self._host.cards_of(gpu))

    def _new_daemon(self) -> DaemonProcess:
        root = f"--host-root={self._host.root}"
        daemon = DaemonProcess(root, "--log-format=text", "--recover-after=0")
        daemon.start()
        daemon.wait_for_line("registered and watched|standing by", timeout=30.0)
        return daemon


def main() -> int:
    """The exit status: 1 if something failed."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    state = Path(os.environ[STATE_VARIABLE])
    node, host, randomness = Node(state / "cluster"), NodeHost(state / "host"), random.Random(seed)
    host.add_gpus(dict.fromkeys(range(GPUS), 1))
    print(f"seed {seed}", flush=True)
    node.start()
    try:
        soak = Soak(node, host, randomness)
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            [event] = randomness.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            print(f"{passed:6.1f} s  {event}", flush=True)
            soak.take(event)
        soak.settle()
    except (SoakFailed, AssertionError) as error:
        print(f"FAILED: {error}")
        return 1
    finally:
        node.processes.kill_all()
    print(", ".join(f"{event}: {count}" for event, count in soak.counts.items()))
    print("no card was in two containers; every refusal was explained; every card counts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
