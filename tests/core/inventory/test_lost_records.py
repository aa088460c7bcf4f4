"""No card is in two containers, in whichever order kubelets lose their records, list pods and are asked."""

import random

import pytest

from biren_plugin.core.inventory.holder_memory import LISTING, HolderMemory
from biren_plugin.core.observed import Holder, KubeletView
from tests.core.inventory.test_holder_memory import CARDS, forgotten, in_doubt
from tests.support.cards import GPU


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
        self.healthy = set(CARDS) - forgotten(found)
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
        self.made += 1
        pod = ("default", f"pod-{self.made:04}")
        self.pods[pod] = set()
        self.admit(pod, dies=dies)

    def end_pod(self) -> None:
        if self.listed:
            pod = self.random.choice(self.listed)
            self.listed.remove(pod)
            self.pods.pop(pod, None)
            self.record = {id_: holder for id_, holder in self.record.items() if holder != pod}

    def restart(self) -> None:
        """The kubelet ends, with or without its record; the next one lists the pods one by one."""
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
        for pod in waiting:
            self.pass_time(0.05)
            if self.pods.get(pod):
                self.listed.append(pod)  # it runs: the kubelet allocates nothing
            else:
                self.admit(pod)
            if self.random.random() < 0.3:
                self.ask()
        self.ask()  # a list that grows is asked for every 0.1 s


@pytest.mark.parametrize("seed", range(150))
def test_in_no_order_of_losses_is_a_card_in_two_containers(seed: int) -> None:
    kubelet = Kubelet(seed)
    for _ in range(60):
        kubelet.pass_time(kubelet.random.choice([0.1, 1, 15]))
        kubelet.random.choices(
            [kubelet.new_pod, kubelet.ask, kubelet.end_pod, kubelet.restart], [3, 4, 2, 1]
        )[0]()


def test_nodes_that_lose_records_do_not_run_out_of_cards() -> None:
    """Once all pods are gone, and listed no more, every card is free."""
    for seed in range(20):
        kubelet = Kubelet(seed)
        for _ in range(40):
            kubelet.pass_time(3)
            kubelet.random.choice([kubelet.new_pod, kubelet.ask, kubelet.restart])()
        while kubelet.listed:
            kubelet.end_pod()
        for _ in range(3):
            kubelet.now += LISTING
            kubelet.ask()
        assert kubelet.healthy == set(CARDS)
        assert not in_doubt(kubelet.memory, kubelet.now)
