"""What happens to the hardware under a daemon."""

import random
from collections.abc import Callable, Mapping, Sequence

from tests.support.host_truth import Devices, cards_by_gpu, truth
from tests.support.simulated_node import Node

_SPARED = 0
"""This GPU stays healthy: a probe that condemns all cards of a node is itself the suspect."""


class HostTrouble:
    """Faulty and recovering cards, new splits, GPUs that vanish and return, the driver's module."""

    def __init__(
        self,
        node: Node,
        splits: Mapping[int, int],
        chance: random.Random,
        follow: Callable[[int, Sequence[str]], None],
    ) -> None:
        """`splits` are those that the node starts with, and has again after `calm`.

        `follow` is called with the cards of a GPU when they have changed.
        """
        self._follow = follow
        self._host = node.host
        self._splits = splits
        self._chance = chance
        self._pulled: set[str] = set()
        self._silent: set[int] = set()
        self._gone: dict[int, list[str]] = {}
        """Names of the cards of each GPU that has vanished."""
        self._errors = 0
        self._module_loaded = True
        self.kinds: Sequence[Callable[[], None]] = (
            self.node_is_pulled,
            self.node_is_put_back,
            self.function_falls_silent,
            self.function_answers_again,
            self.fatal_errors_are_counted,
            self.gpu_is_split_anew,
            self.gpu_vanishes,
            self.gpu_returns,
            self.module_is_unloaded,
            self.module_is_loaded,
        )

    def node_is_pulled(self) -> None:
        """A card's device node vanishes."""
        if gpu := self._pick_present():
            card = self._chance.choice(self._host.cards_of(gpu))
            self._host.pull_node(card)
            self._pulled.add(card)

    def node_is_put_back(self) -> None:
        """A pulled node is there again."""
        if self._pulled:
            card = self._chance.choice(sorted(self._pulled))
            self._pulled.remove(card)
            self._host.put_node_back(card)

    def function_falls_silent(self) -> None:
        """A GPU's PCI function answers 0xFF to everything."""
        if gpu := self._pick_present():
            self._host.silence(self._host.cards_of(gpu)[0])
            self._silent.add(gpu)

    def function_answers_again(self) -> None:
        """A silent function answers."""
        if self._silent:
            gpu = self._chance.choice(sorted(self._silent))
            self._silent.remove(gpu)
            self._host.unsilence(self._host.cards_of(gpu)[0])

    def fatal_errors_are_counted(self) -> None:
        """A card's count of fatal PCIe errors rises: Unhealthy until it has been quiet."""
        if gpu := self._pick_present():
            self._errors += 1
            card = self._host.cards_of(gpu)[0]
            self._host.count_errors(card, "aer_dev_fatal", self._errors)

    def gpu_is_split_anew(self) -> None:
        """An operator splits a GPU into 1, 2 or 4, or re-creates it as it was."""
        parts = self._chance.choice((1, 2, 4))
        if gpu := self._pick_present():
            self._split(gpu, parts)

    def gpu_vanishes(self) -> None:
        """A GPU falls off the bus with all its cards."""
        if gpu := self._pick_present():
            self._gone[gpu] = self._host.cards_of(gpu)
            self._forget(gpu)
            self._host.remove_gpu(gpu)
            self._follow(gpu, ())

    def gpu_returns(self) -> None:
        """A vanished GPU returns, split as at the beginning."""
        if self._gone:
            gpu = self._chance.choice(sorted(self._gone))
            self._split(gpu, self._splits[gpu])

    def module_is_unloaded(self) -> None:
        """The driver's module goes; a daemon that saw it takes all cards out of service."""
        if self._module_loaded:
            self._host.unload_module()
        self._module_loaded = False

    def module_is_loaded(self) -> None:
        """The module is back."""
        if not self._module_loaded:
            self._host.load_module()
        self._module_loaded = True

    def rest(self) -> None:
        """The module is loaded: a daemon that never saw it has nothing to miss."""
        self.module_is_loaded()

    def calm(self) -> None:
        """All GPUs are there, split as at the beginning, and healthy."""
        self.module_is_loaded()
        for gpu in sorted(self._gone):
            self._split(gpu, self._splits[gpu])
        for gpu, parts in self._splits.items():
            if len(self._host.cards_of(gpu)) != parts:
                self._split(gpu, parts)
        while self._pulled:
            self.node_is_put_back()
        while self._silent:
            self.function_answers_again()

    def matches(self, seen: Devices) -> bool:
        """Whether the kubelet sees the host as it is.

        Cards of a GPU that has vanished may be listed, Unhealthy: a daemon that was started since
        has never known them.
        """
        expected = truth(self._host.root)
        gone = {name for names in self._gone.values() for name in names}
        for resource, devices in seen.items():
            wanted = expected.pop(resource, {})
            more = {id_: healthy for id_, healthy in devices.items() if id_ not in wanted}
            if {id_: devices.get(id_) for id_ in wanted} != wanted:
                return False
            if more.keys() - gone or any(more.values()):
                return False
        return not expected

    def _pick_present(self) -> int:
        """A GPU that is there and is not spared; 0, which is, if there is none."""
        present = sorted(cards_by_gpu(self._host.root).keys() - {_SPARED})
        return self._chance.choice(present) if present else _SPARED

    def _split(self, gpu: int, parts: int) -> None:
        self._forget(gpu)
        self._follow(gpu, self._host.split(gpu, parts))
        self._gone.pop(gpu, None)

    def _forget(self, gpu: int) -> None:
        """A GPU whose cards are re-created is healthy."""
        self._silent.discard(gpu)
        self._pulled -= set(self._host.cards_of(gpu))
