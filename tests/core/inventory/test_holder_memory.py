"""No card is in two containers, whatever a kubelet forgets, and whenever it is asked."""

import random

import pytest

from biren_plugin.core.inventory.holder_memory import BATCH, FORGET_AFTER, LISTING, HolderMemory
from biren_plugin.core.observed import Holder, Holders, KubeletView
from tests.support.cards import GPU

TRAIN = Holder("default", "train", "main")
SERVE = Holder("team", "serve", "main")
PROXY = ("kube-system", "proxy")
BEFORE: Holders = {(GPU, "card_0"): TRAIN, (GPU, "card_1"): SERVE}
CARDS = [f"card_{number}" for number in range(4)]


def pods_of(*holders: Holder) -> frozenset[tuple[str, str]]:
    return frozenset((each.namespace, each.pod) for each in holders)


RUNNING = pods_of(TRAIN, SERVE)


def view(at: float, holders: Holders, pods: frozenset[tuple[str, str]] = RUNNING) -> KubeletView:
    return KubeletView(at, holders, None, pods)


def registered(kubelet: str = "a", at: float = 0.0) -> HolderMemory:
    memory = HolderMemory()
    memory.registering(GPU, kubelet, at)
    return memory


def known() -> HolderMemory:
    """Kubelet `a` has reported `BEFORE`."""
    memory = registered()
    memory.answered(view(1.0, BEFORE), "a")
    return memory


def forgotten(holders: Holders) -> set[str]:
    return {id_ for (_, id_), holder in holders.items() if holder.forgotten}


def in_doubt(memory: HolderMemory, now: float) -> set[str]:
    return {id_ for id_ in CARDS if memory.doubt(GPU, id_, now)}


def test_a_kubelet_that_kept_its_checkpoint_has_forgotten_nothing() -> None:
    memory, now = known(), {(GPU, "card_1"): SERVE}
    assert memory.answered(view(2.0, now), "b") == now
    assert not memory.is_settling


def test_a_kubelet_that_shows_no_known_device_has_forgotten_those_of_running_pods() -> None:
    memory = known()
    found = memory.answered(view(2.0, {}, pods_of(TRAIN)), "b")
    assert forgotten(found) == {"card_0"}
    assert found[GPU, "card_1"] == SERVE, "it may not be listed yet"
    assert in_doubt(memory, 2.0) == {"card_0", "card_1"}
    assert forgotten(memory.answered(view(2.1, {}), "b")) == {"card_0", "card_1"}


def test_a_card_that_another_pod_was_given_meanwhile_is_no_record_that_was_kept() -> None:
    now = {(GPU, "card_0"): Holder("default", "new", "main")}
    found = known().answered(view(2.0, now, RUNNING | pods_of(*now.values())), "b")
    assert found[GPU, "card_0"].pod == "new"
    assert forgotten(found) == {"card_1"}


def test_what_the_new_kubelet_allocated_is_no_record_that_was_kept() -> None:
    memory = known()
    memory.registering(GPU, "b", 2.0)
    memory.answered(view(2.1, {}), "b")
    memory.allocated(GPU, ["card_2"], 2.2)
    now = {(GPU, "card_2"): Holder("default", "new", "main")}
    for at in (2.3, 2.4, 40.0, 50.0):
        assert forgotten(memory.answered(view(at, now), "b")) == {"card_0", "card_1"}


def test_what_was_forgotten_once_stays_so_when_the_next_kubelet_keeps_its_record() -> None:
    memory = known()
    memory.answered(view(2.0, {(GPU, "card_2"): SERVE}, RUNNING), "b")
    memory.answered(view(3.0, {(GPU, "card_2"): SERVE}, frozenset()), "c")
    found = memory.answered(view(3.1, {(GPU, "card_2"): SERVE}), "c")
    assert forgotten(found) == {"card_0"}, "serve was started again, and got another card"


def test_a_pod_that_completed_while_its_kubelet_was_away_is_not_forgotten() -> None:
    memory = known()
    assert forgotten(memory.answered(view(2.0, {}, pods_of(TRAIN)), "b")) == {"card_0"}
    assert memory.answered(view(2.1, {(GPU, "card_1"): SERVE}), "b") == {(GPU, "card_1"): SERVE}


def test_a_container_that_was_started_again_releases_its_former_card_and_its_neighbour_none() -> (
    None
):
    side = Holder("default", "train", "side")
    memory = registered()
    memory.answered(view(1.0, {(GPU, "card_0"): TRAIN, (GPU, "card_1"): side}), "a")
    found = memory.answered(view(2.0, {(GPU, "card_2"): TRAIN}), "b")
    assert forgotten(found) == {"card_1"}


def test_a_pod_that_is_not_listed_for_long_is_gone() -> None:
    memory = known()
    others = frozenset({PROXY})
    assert memory.answered(view(2.0, {}, others), "b") == BEFORE
    assert memory.answered(view(2.0 + LISTING, {}, others), "b") == BEFORE
    assert memory.answered(view(2.1 + LISTING, {}, others), "b") == {}
    assert not in_doubt(memory, 3.0 + LISTING)


def test_a_card_is_in_doubt_until_the_kubelet_that_the_resource_is_registered_with_was_asked() -> (
    None
):
    memory = known()
    assert not in_doubt(memory, 2.0)
    memory.registering(GPU, "b", 2.0)
    assert in_doubt(memory, 2.0) == {"card_0", "card_1"}
    memory.answered(view(2.1, BEFORE), "b")
    assert not in_doubt(memory, 2.2)


def test_a_kubelet_that_does_not_answer_leaves_no_card_in_doubt_for_ever() -> None:
    memory = known()
    memory.registering(GPU, "b", 2.0)
    assert in_doubt(memory, 2.0 + FORGET_AFTER)
    assert not in_doubt(memory, 2.1 + FORGET_AFTER)


def lost_at_once() -> HolderMemory:
    """Kubelet `a` allocated `card_2` and ended; `b` has neither answered nor been registered with."""
    memory = registered()
    memory.answered(view(1.0, {}, frozenset({PROXY})), "a")
    memory.allocated(GPU, ["card_2"], 5.0)
    return memory


@pytest.mark.parametrize("first", ["answer", "registration"])
def test_a_card_allocated_right_before_the_kubelet_lost_its_record_is_held_by_a_new_pod(
    first: str,
) -> None:
    memory = lost_at_once()
    if first == "registration":
        memory.registering(GPU, "b", 8.0)
        assert in_doubt(memory, 8.0) == {"card_2"}
    memory.answered(view(8.1, {}, frozenset()), "b")
    if first == "answer":
        memory.registering(GPU, "b", 8.2)
    assert in_doubt(memory, 8.2) == {"card_2"}
    found = memory.answered(view(9.0, {}, RUNNING | {PROXY}), "b")
    assert found == {(GPU, "card_2"): Holder("default", "train", forgotten=True, perhaps=True)}
    later = 9.1 + BATCH
    memory.answered(view(later, {}, RUNNING | {PROXY, ("default", "late")}), "b")
    found = memory.answered(view(later + 40, {}, frozenset({PROXY, ("team", "serve")})), "b")
    assert found[GPU, "card_2"].pod == "serve"
    assert in_doubt(memory, later + 40) == {"card_2"}
    assert memory.answered(view(later + 50, {}, frozenset({PROXY, ("default", "late")})), "b") == {}
    assert not in_doubt(memory, later + 50)


def test_a_card_that_no_new_pod_can_hold_is_free_again() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    memory.answered(view(8.1, {}, frozenset({PROXY})), "b")
    assert in_doubt(memory, 8.2) == {"card_2"}
    assert memory.answered(view(8.2 + BATCH, {}, frozenset({PROXY})), "b") == {}
    assert not in_doubt(memory, 8.3 + BATCH)


def test_an_allocation_that_the_next_kubelet_shows_was_recorded() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "b", 8.0)
    now = {(GPU, "card_2"): TRAIN}
    assert memory.answered(view(8.1, now), "b") == now
    assert not in_doubt(memory, 8.2)


def test_a_kubelet_that_is_registered_with_again_has_recorded_what_it_allocated() -> None:
    memory = lost_at_once()
    memory.registering(GPU, "the same in a new directory", 5.5)
    assert in_doubt(memory, 5.6) == {"card_2"}
    memory.answered(view(5.6, {}, frozenset({PROXY})), "a")
    assert not in_doubt(memory, 5.7)
    assert memory.answered(view(6.0, {(GPU, "card_2"): TRAIN}), "a") == {(GPU, "card_2"): TRAIN}


def test_an_allocation_that_came_to_nothing_is_not_held() -> None:
    memory = lost_at_once()
    memory.answered(view(7.5, {}, frozenset({PROXY})), "a")
    memory.registering(GPU, "b", 8.0)
    assert not in_doubt(memory, 8.0)


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
