"""What the node does to the daemon's process: stops, clocks, kills, and a second one beside it."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.simulated_node import Node

_ENDING = 20.0
"""Seconds within which a daemon must have ended."""
_JUMPS = (-86_400 * 365, -3600, -1, 1, 3600, 86_400 * 365)
"""Seconds: a clock that was set by hand, or by NTP after a boot without a battery."""


class DaemonTrouble:
    """Signals to the daemon, its successors, and the wall clock that it reads in `clock`."""

    def __init__(self, node: Node, clock: Path, chance: random.Random, *flags: str) -> None:
        """`flags` are the daemon's, for those that are started here."""
        self._node = node
        self._clock = clock
        self._chance = chance
        self._flags = flags
        self._stopped = False
        self.kinds: Sequence[Callable[[], None]] = (
            self.daemon_is_stopped,
            self.daemon_goes_on,
            self.clock_jumps,
        )
        self.ending: Sequence[Callable[[], None]] = (
            self.daemon_is_killed,
            self.daemon_hands_over,
            self.daemon_restarts,
        )
        """Kinds after which another process serves."""

    @property
    def answers(self) -> bool:
        """Whether the daemon would answer a call: it is not stopped."""
        return not self._stopped

    def daemon_is_stopped(self) -> None:
        """SIGSTOP at any moment; other troubles come before SIGCONT."""
        self._signal(signal.SIGSTOP)
        self._stopped = True

    def daemon_goes_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._stopped = False

    def clock_jumps(self) -> None:
        """The wall clock is set forwards or back."""
        self._set_clock(self._chance.choice(_JUMPS))

    def daemon_is_killed(self) -> None:
        """SIGKILL, and a new daemon: sockets and the kubelet's streams are left as they are."""
        self._signal(signal.SIGKILL)
        assert self._node.daemon is not None
        self._node.daemon.wait(_ENDING)
        self._stopped = False
        self._node.daemon = self._node.launch(*self._flags)

    def daemon_restarts(self) -> None:
        """SIGTERM, and a new daemon afterwards."""
        self._end()
        self._node.daemon = self._node.launch(*self._flags)

    def daemon_hands_over(self) -> None:
        """A second daemon starts and stands by, as in a rolling update with a surge; the first one ends."""
        second = self._node.launch(*self._flags)
        time.sleep(self._chance.uniform(0, 1.5))  # the first may end at any moment of its start
        self._end()
        self._node.daemon = second

    def rest(self) -> None:
        """The daemon runs."""
        self.daemon_goes_on()

    def calm(self) -> None:
        """The daemon runs, with the right clock."""
        self.daemon_goes_on()
        self._set_clock(0)

    def check(self) -> None:
        """Raises AssertionError if the daemon has ended by itself."""
        assert self._node.daemon is not None
        assert self._node.daemon.poll() is None, "the daemon has ended by itself"

    def _set_clock(self, off_by: int) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(f"{off_by}\n")
        new.replace(self._clock)  # the daemon reads it at any moment

    def _end(self) -> None:
        self.daemon_goes_on()  # SIGTERM has no effect on a stopped process
        assert self._node.daemon is not None
        self._node.daemon.terminate()
        status = self._node.daemon.wait(_ENDING)
        # The signal kills an interpreter that has not reached the plugin's code yet.
        assert status in (0, -signal.SIGTERM), f"asked to end, the daemon ended with {status}"

    def _signal(self, number: int) -> None:
        self.check()
        assert self._node.daemon is not None
        self._node.daemon.send_signal(number)
