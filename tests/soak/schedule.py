"""The random schedule: trouble, rest, more trouble, calm; in each pause the views must be the same.

1. The seed decides which trouble comes and what it does; how much of it fits into the time depends
   on the machine. A failure shows the last troubles.
2. In every pause the kubelet's view must equal the host's, faulty cards included. In every second one
   the node is as it was at the beginning, and what the daemon's process holds is compared.
3. Troubles that end the process come in the first third only: then one process lives on, so that
   what grows has time to show. The figures are those of that process.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.soak.client_trouble import ClientTrouble
from tests.soak.daemon_trouble import DaemonTrouble
from tests.soak.disk_trouble import DiskTrouble
from tests.soak.host_trouble import HostTrouble
from tests.soak.kubelet_trouble import KubeletTrouble
from tests.soak.library_trouble import LibraryTrouble
from tests.soak.state import State, growth, read_state
from tests.soak.trouble import Trouble
from tests.support.host_truth import Devices
from tests.support.simulated_node import Node

ENDING_SHARE = 1 / 3
_EVENTS_BETWEEN_PAUSES = 10
_GAPS = (0.0, 0.0, 0.05, 0.3, 1.1)
"""Seconds between troubles: at once, within one scan of the host, after the next."""
_QUIET = 45.0
"""Seconds within which the views must be the same: the daemon's longest backoff and some."""
_SLOW = 15.0
"""Seconds after which a pause is reported: a fatal PCIe error keeps a card out of service for ten."""
_STEADY = 1.2
"""Seconds for which they must stay the same: one scan of the host."""
_SHOWN = 40
_TRIES = 5


class SoakError(Exception):
    """The node did not come to rest in time."""


class Schedule:
    """One node, from its start to the last comparison."""

    def __init__(
        self,
        node: Node,
        splits: Mapping[int, int],
        folder: Path,
        chance: random.Random,
        library: LibraryTrouble,
        disk: DiskTrouble | None,
        *flags: str,
    ) -> None:
        """`disk` is None where nothing can be mounted; `flags` are the daemon's."""
        self._node = node
        self._folder = folder
        self._chance = chance
        self._host = HostTrouble(node, splits, chance, library.follow)
        self._daemon = DaemonTrouble(node, folder / "clock", chance, *flags)
        self._kubelet = KubeletTrouble(node, self._daemon, chance)
        clients = ClientTrouble(node, chance)
        self._all: list[Trouble] = [self._daemon, self._kubelet, clients, library, self._host]
        if disk is not None:
            self._all.append(disk)
        self._last: deque[str] = deque(maxlen=_SHOWN)
        self._fewest = read_state(node, folder).counts
        self.events = 0
        self.slowest = 0.0
        """Seconds until the views were the same, the longest of all pauses."""

    def run(self, seconds: float) -> list[State]:
        """Makes trouble for so long; the states of the last process. Raises `SoakError`."""
        started = time.monotonic()
        states: list[State] = []
        lives = {self._node.pid}
        while (elapsed := time.monotonic() - started) < seconds or len(states) < 2:
            kinds = [kind for each in self._all for kind in each.kinds]
            if elapsed < seconds * ENDING_SHARE:
                kinds += self._daemon.ending
            try:
                self._make_trouble(kinds)
                self._rest(calm=False)
                self._make_trouble(kinds)
                self._rest(calm=True)
                state = self._settle()
            except Exception as error:
                raise SoakError(f"{error}\nthe last troubles:\n" + "\n".join(self._last)) from error
            lives.add(self._node.pid)
            states = [each for each in states if each.process == state.process] + [state]
            print(
                f"{time.monotonic() - started:5.0f} s {self.events:6} events  {state}", flush=True
            )
            for grown in growth(states):
                print(f"  more than at first: {grown}", *self._last, sep="\n  ", flush=True)
        print(f"views the same after {self.slowest:.1f} s at most; {len(lives)} processes or more")
        return states

    def _settle(self) -> State:
        """What the daemon holds once each resource has one stream.

        A kubelet that starts may hear two Registers of a resource, of the life that it ended and of
        the next; it then holds two streams until it is started again, and that is no growth of ours.
        """
        state = settle(self._node, self._folder)
        for _ in range(_TRIES):
            if state.counts <= self._fewest:
                break
            self._kubelet.kubelet_restarts()
            self._rest(calm=True)
            state = settle(self._node, self._folder)
        self._fewest = min(self._fewest, state.counts)
        return state

    def _make_trouble(self, kinds: list[Callable[[], None]]) -> None:
        for _ in range(_EVENTS_BETWEEN_PAUSES):
            kind = self._chance.choice(kinds)
            self.events += 1
            self._last.append(f"{time.monotonic():10.2f}  {self.events:6}  {kind.__name__}")
            kind()
            time.sleep(self._chance.choice(_GAPS))  # trouble in real processes takes real time

    def _rest(self, *, calm: bool) -> None:
        for each in self._all:
            each.rest()
            if calm:
                each.calm()
        self._last.append(f"{time.monotonic():10.2f}          {'calm' if calm else 'rest'}")
        started = time.monotonic()
        same_since: float | None = None
        while same_since is None or time.monotonic() - same_since < _STEADY:
            self._daemon.check()
            seen = self._seen()
            if not self._host.matches(seen):
                same_since = None
                if time.monotonic() > started + _QUIET:
                    raise SoakError(f"after {_QUIET:g} s the kubelet still sees {seen}")
            elif same_since is None:
                same_since = time.monotonic()
            time.sleep(0.1)  # no event shows that nothing changes
        took = same_since - started
        self.slowest = max(self.slowest, took)
        if took > _SLOW:
            print(f"the views were the same after {took:.1f} s", *self._last, sep="\n", flush=True)

    def _seen(self) -> Devices:
        believed = self._node.kubelet.state()["devices"]
        return {
            resource: {id_: health == "Healthy" for id_, health in devices.items()}
            for resource, devices in believed.items()
            if devices
        }


def settle(node: Node, folder: Path) -> State:
    """What the daemon holds once its tasks and descriptors come and go no more."""
    last: State | None = None
    deadline = time.monotonic() + _QUIET
    while True:
        state = read_state(node, folder)
        if (last is not None and state.counts == last.counts) or time.monotonic() > deadline:
            return state
        last = state
        time.sleep(0.4)  # no event shows that a process is at rest
