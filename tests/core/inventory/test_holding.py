"""Whatever is re-split and renumbered while pods come and go, no two pods get the same hardware."""

import itertools
from random import Random

import attrs
import pytest

from biren_plugin.core.health.verdicts import HealthKeeper, HealthPolicy
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.observed import Holder, Holders, LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, LibraryFacts
from biren_plugin.core.parse.card import Card
from tests.support.cards import card, snapshot

GPUS = 4
ASKED_AFTER, ASKED_EVERY = 1.0, 10.0
"""As in `host.pod_resources`."""


@attrs.frozen
class Pod:
    """What a pod holds: the name, and the real hardware."""

    resource: str
    id: str
    unit: Card


class Node:
    """A host that an administrator re-splits, the daemon's keepers, and a kubelet that allocates cards."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.splits = [random.choice([1, 2, 4]) for _ in range(GPUS)]
        self.order = list(range(GPUS))
        self.inventory, self.health = InventoryKeeper(), HealthKeeper(HealthPolicy(recover_after=0))
        self.now = self.asked = 0.0
        self.changed: float | None = None
        self.holders: Holders = {}
        self.library: LibraryRound | None = None
        self.pods: dict[str, Pod] = {}
        self.names = map("pod-{}".format, itertools.count())

    def cards(self) -> list[Card]:
        """Return the cards numbered in order, as a reloaded driver may number them."""
        gpus = [gpu for gpu in self.order for _ in range(self.splits[gpu])]
        return [card(number, gpu, parts=self.splits[gpu]) for number, gpu in enumerate(gpus)]

    def change(self) -> None:
        """Re-split a GPU without a pod, and perhaps renumber all cards."""
        used = {pod.unit.physical_id for pod in self.pods.values()}
        if unused := [gpu for gpu in range(GPUS) if gpu not in used]:
            self.splits[self.random.choice(unused)] = self.random.choice([1, 2, 4])
        if self.random.random() < 0.3:
            self.random.shuffle(self.order)
        self.changed = self.now if self.changed is None else self.changed

    def ask(self) -> None:
        is_due = self.changed is not None and self.now - self.changed >= ASKED_AFTER
        if is_due or self.now - self.asked >= ASKED_EVERY:
            self.asked, self.changed = self.now, None
            self.holders = {
                (pod.resource, pod.id): Holder("default", name) for name, pod in self.pods.items()
            }

    def ask_library(self) -> None:
        split = {each.number: self.splits[each.physical_id or 0] for each in self.cards()}
        readings = {
            number: CardReading(number, svi_current=parts, svi_pending=parts)
            for number, parts in split.items()
        }
        self.library = LibraryRound(self.now, LibraryFacts(""), readings=readings)

    def schedule(self) -> None:
        """End some pods, and give others devices that are Healthy and, for the kubelet, free."""
        for name in list(self.pods):
            if self.random.random() < 0.05:
                del self.pods[name]
        cards = self.cards()
        place = {each.name: self._place(each, cards) for each in cards}
        seen = Observed(snapshot(*cards), self.library, self.holders)
        node = self.health.judge(self.inventory.update(seen, self.now), seen, self.now)
        taken = {(pod.resource, pod.id) for pod in self.pods.values()}
        for device in (each for one in node.lists for each in one.devices if each.healthy):
            if (device.resource, device.id) not in taken and self.random.random() < 0.3:
                unit = place[device.id]
                assert unit not in [pod.unit for pod in self.pods.values()], device.id
                self.pods[next(self.names)] = Pod(device.resource, device.id, unit)

    @staticmethod
    def _place(one: Card, cards: list[Card]) -> Card:
        """Return the card by its place in its GPU, whatever its number."""
        own = [each.number for each in cards if each.physical_id == one.physical_id]
        return attrs.evolve(one, name="", number=own.index(one.number))


@pytest.mark.parametrize("seed", range(60))
def test_no_two_pods_hold_the_same_hardware(seed: int) -> None:
    node = Node(Random(seed))
    for _ in range(80):
        node.now += node.random.choice([0.05, 0.3, 1.0, 1.0, 1.0, 3.0])
        if node.random.random() < 0.15:
            node.change()
        node.ask()
        if node.random.random() < 0.3:
            node.ask_library()
        node.schedule()
