"""Lives of a node whose kubelets lose their records: no card may be in two containers.

`python -m tests.support.kubelet_lives 5000` plays that many; the tests play 150.
"""

import math
import random
import sys

from biren_plugin.core.inventory.holder_memory import HolderMemory
from biren_plugin.core.inventory.kubelet_start import BATCH
from biren_plugin.core.observed import Holder, Holders, KubeletView
from tests.support.cards import GPU

CARDS = [f"card_{number}" for number in range(4)]


def is_forgotten(holders: Holders, id_: str) -> bool:
    return (GPU, id_) in holders and holders[GPU, id_].forgotten


class Kubelet:
    """A node's kubelets, one after the other, and the containers that run: no card may be in two of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.memory = HolderMemory()
        self.now = 0.0
        self.life = 0
        self.healthy = set(CARDS)
        self.pods: dict[tuple[str, str], set[str]] = {}
        """The cards that each pod's container has, in the order in which the pods were created."""
        self.listed: list[tuple[str, str]] = []
        self.record: dict[str, tuple[str, str]] = {}
        self.made = 0
        self.ended: dict[tuple[str, str], float] = {}
        """When a pod of the same name can come: if it held nothing, once the list has shown its end."""
        self.ask()
        self.register()

    def pass_time(self, most: float) -> None:
        self.now += self.random.uniform(0.001, most)

    def register(self) -> None:
        self.memory.registering(GPU, self.life, self.now)

    def ask(self) -> None:
        """The daemon asks; its next list has the Unhealthy cards."""
        holders = {
            (GPU, id_): Holder(*pod, "main")
            for id_, pod in self.record.items()
            if pod in self.listed
        }
        found = self.memory.answered(
            KubeletView(self.now, holders, None, frozenset(self.listed)), self.life
        )
        self.ended = {pod: min(at, self.now) for pod, at in self.ended.items()}
        self.healthy = {id_ for id_ in CARDS if not is_forgotten(found, id_)}
        assert not self.running_twice(), (found, self.pods)

    def running_twice(self) -> set[str]:
        held = [id_ for ids in self.pods.values() for id_ in ids]
        return {id_ for id_ in held if held.count(id_) > 1}

    def admit(self, pod: tuple[str, str], *, dies: bool = False) -> None:
        """Admit a pod that wants one card; `dies`: the kubelet ends before it records that."""
        self.listed.append(pod)
        free = sorted(self.healthy - self.record.keys())
        if not free:
            return
        id_ = self.random.choice(free)
        if self.memory.doubt(GPU, id_, self.now):
            self.ask()
            if self.memory.doubt(GPU, id_, self.now) or id_ not in self.healthy:
                return
        self.memory.allocated(GPU, [id_], self.now)
        if not dies:
            self.record[id_] = pod
        self.pods[pod] = {id_}
        assert not self.running_twice(), f"{pod} got {id_}: {self.pods}"

    def new_pod(self, *, dies: bool = False) -> None:
        """Create a pod, some of them under the name of one that has ended."""
        self.made += 1
        pod = ("default", f"pod-{self.made:04}")
        seen = [each for each, at in self.ended.items() if self.now - at > BATCH]
        if seen and self.random.random() < 0.3:
            pod = self.random.choice(seen)
            del self.ended[pod]
        self.pods[pod] = set()
        self.admit(pod, dies=dies)

    def end_pod(self) -> None:
        if self.listed:
            pod = self.random.choice(self.listed)
            self.listed.remove(pod)
            if self.pods.pop(pod, None) is not None:
                self.ended[pod] = -math.inf if pod in self.record.values() else math.inf
            self.record = {id_: holder for id_, holder in self.record.items() if holder != pod}

    def restart(self) -> None:
        """The kubelet ends, with or without its record; the next one lists the pods one by one, if it lives."""
        dies = self.random.random() < 0.5
        if dies:
            self.new_pod(dies=dies)
        if self.random.random() < 0.6 or dies:
            self.record = {}
        self.life += 1
        waiting, self.listed = sorted(self.pods), []
        self.random.shuffle(waiting)  # an older pod may have been bound to the node later
        if self.random.random() < 0.5:
            waiting.insert(self.random.randrange(len(waiting) + 1), ("default", f"w-{self.life}"))
        steps = [self.register, *[self.ask] * self.random.randrange(3)]
        self.random.shuffle(steps)
        for step in steps:
            self.pass_time(1)
            step()
        last = self.random.choice(waiting) if waiting and self.random.random() < 0.3 else None
        for pod in waiting:
            self.pass_time(min(0.05, BATCH / len(waiting)))
            if self.pods.get(pod):
                self.listed.append(pod)  # it runs: the kubelet allocates nothing
            else:
                self.admit(pod)
            if self.random.random() < 0.3:
                self.ask()
            if pod == last:
                self.restart()
                return
        if self.random.random() < 0.2:
            self.pass_time(5)  # until a question that gets no answer is given up
        self.ask()  # a list that grows is asked for every 0.1 s


def live(seed: int) -> None:
    """One life: what happens is chosen by the seed."""
    kubelet = Kubelet(seed)
    for _ in range(60):
        kubelet.pass_time(kubelet.random.choice([0.1, 1, 15]))
        kubelet.random.choices(
            [kubelet.new_pod, kubelet.ask, kubelet.end_pod, kubelet.restart], [3, 4, 2, 1]
        )[0]()


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        try:
            live(each)
        except AssertionError as error:
            sys.exit(f"life {each}: {error}")
