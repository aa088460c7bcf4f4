"""What happens to the management library: calls that hang, for one card or for all."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.brml.on_host import HostLibrary
from tests.support.host_truth import cards_by_gpu
from tests.support.simulated_node import Node

_OF_A_CARD = ("brmlDeviceGetHealthStatus", "brmlDeviceGetHandleByNodeId")
_OF_ALL = ("brmlDeviceGetCount", "brmlDeviceGetTemperature")


class LibraryTrouble:
    """A stand-in library on the node's host, which knows the cards that the host has."""

    def __init__(self, node: Node, folder: Path, chance: random.Random) -> None:
        """Installs it; the daemons that start from now on find it."""
        self._root = node.host.root
        self._chance = chance
        self._library = HostLibrary(self._root, folder)
        self._state = self._library.state
        self.follow = self._library.follow
        self.kinds: Sequence[Callable[[], None]] = (
            self.call_of_a_card_hangs,
            self.call_of_all_hangs,
            self.calls_return,
        )

    def call_of_a_card_hangs(self) -> None:
        """Calls for one card hang: that card alone is Unhealthy after five seconds."""
        cards = [name for names in cards_by_gpu(self._root).values() for name in names]
        if cards:
            number = int(self._chance.choice(cards).removeprefix("card_"))
            self._state.hang(self._chance.choice(_OF_A_CARD), number)

    def call_of_all_hangs(self) -> None:
        """Calls for every card hang, as with a broken driver: no card is Unhealthy for that."""
        self._state.hang(self._chance.choice(_OF_ALL))

    def calls_return(self) -> None:
        """Every call that hangs returns."""
        self._state.release()

    def rest(self) -> None:
        """No call hangs: the kubelet's view is then what sysfs shows."""
        self._state.release()

    def calm(self) -> None:
        """The same."""
        self._state.release()

    def close(self) -> None:
        """No call hangs any more."""
        self._state.close()
