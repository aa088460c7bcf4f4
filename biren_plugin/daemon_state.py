"""The daemon's blackboard: its role, the boards of its resources, counters, and times of changes.

1. Counting never waits, fails or grows without bound: keys are resources, names of loops and
   subtrees, and classes of errors.
2. A module that counts knows nothing of metrics; a module that reads changes nothing.
"""

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.health.modes import ProbeMode
from biren_plugin.core.inventory.holder_memory import HolderMemory
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.observed import DeviceKey, Doubt, KubeletView, Observed
from biren_plugin.core.parse.vendor import MONITORING_RESOURCE
from biren_plugin.core.rivals import Rival
from biren_plugin.last_calls import LastCalls
from biren_plugin.notice import Notice
from biren_plugin.records import mutable

if TYPE_CHECKING:
    from biren_plugin.core.cdi.findings import OnDisk
    from biren_plugin.core.dra.driver_state import DriverState
    from biren_plugin.core.event_objects import NodeEventsState
    from biren_plugin.core.hami.hami_state import HamiState

Outcome = Literal["answered", "refused", "failed"]

CALL_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0)
"""Upper bounds in seconds: a choice among 24 cards takes 2 ms, the deadline is at 2 s."""


@mutable
class Latency:
    """Durations of calls: the number up to each of `CALL_BOUNDS`, and beyond."""

    counts: list[int] = attrs.Factory(lambda: [0] * (len(CALL_BOUNDS) + 1))
    """Not cumulative; the last one counts the calls beyond all bounds."""
    total: float = 0.0
    """Seconds, the sum over all calls."""

    def add(self, seconds: float) -> None:
        """Count one call."""
        self.counts[bisect_left(CALL_BOUNDS, seconds)] += 1
        self.total += seconds


class Turn(NamedTuple):
    """The last turn of a loop."""

    at: float
    """The end of the turn, in seconds of trio's clock."""
    seconds: float
    """The duration in seconds, without the wait for the next turn."""


@mutable
class Counters:
    """All counters of one daemon."""

    registrations: Counter[str] = attrs.Factory(Counter)
    """Accepted and watched registrations, by resource."""
    restarts: Counter[tuple[str, str]] = attrs.Factory(Counter)
    """Restarts by subtree and class of the error."""
    allocations: Counter[tuple[str, Outcome]] = attrs.Factory(Counter)
    """By resource."""
    allocating: Latency = attrs.Factory(Latency)
    preferring: Latency = attrs.Factory(Latency)
    claims: Counter[Outcome] = attrs.Factory(Counter)
    """Claims that the kubelet had prepared."""
    preparing: Latency = attrs.Factory(Latency)
    lists_sent: dict[str, float] = attrs.Factory(dict)
    """When the last list was sent, in seconds since 1970, by resource."""
    turns: dict[str, Turn] = attrs.Factory(dict)
    """By name of the loop."""

    def registered(self, resource: str) -> None:
        """Count a registration that the kubelet accepted and watches."""
        self.registrations[resource] += 1

    def restarted(self, subtree: str, cause: Exception) -> None:
        """Count a subtree that failed and will start again."""
        self.restarts[subtree, type(cause).__name__] += 1

    def list_sent(self, resource: str) -> None:
        """Note that a list was written to the kubelet's stream."""
        self.lists_sent[resource] = time.time()

    def turned(self, loop: str, seconds: float) -> None:
        """Note that a loop has made a turn."""
        self.turns[loop] = Turn(trio.current_time(), seconds)


class HealthTimes:
    """Remembers the devices of the last inventory only."""

    def __init__(self) -> None:
        self._known: dict[DeviceKey, tuple[bool, float]] = {}

    def update(self, inventory: Inventory, now: float) -> None:
        """Take the next inventory; `now` is in seconds of the clock of `since`."""
        known: dict[DeviceKey, tuple[bool, float]] = {}
        for each in inventory.lists:
            for device in each.devices:
                key = each.resource, device.id
                before = self._known.get(key, (not device.healthy, now))
                known[key] = before if before[0] == device.healthy else (device.healthy, now)
        self._known = known

    def since(self, device: Device) -> float | None:
        """Return when the device appeared or last changed its health; None if no inventory showed that."""
        known = self._known.get((device.resource, device.id))
        return known[1] if known is not None and known[0] == device.healthy else None


Role = Literal["waiting", "standing by", "serving"]
"""Waiting for the kubelet's directory, waiting for another instance to release it, or serving."""

SLACK: Final = 30.0
"""Seconds beyond its interval after which a loop that made no turn is stuck: a hung driver costs a
turn 5 s, a failure a wait of 15 s."""


@mutable
class DaemonState:
    """Belongs to the daemon; all other modules only read it."""

    observed: Board[Observed] = attrs.Factory(Board)
    inventory: Board[Inventory] = attrs.Factory(Board)
    counters: Counters = attrs.Factory(Counters)
    intervals: dict[str, float] = attrs.Factory(dict)
    """Seconds between turns, by name of each loop that makes turns."""
    probes: Mapping[str, ProbeMode] = attrs.Factory(dict)
    """The mode of each probe, by name."""
    role: Role = "waiting"
    hindrance: str = ""
    """What keeps an instance that does not serve from being ready, besides a missing directory."""
    registered: dict[str, Board[bool]] = attrs.Factory(dict)
    """By resource with a live subtree: whether the kubelet accepted the registration and watches."""
    offered: dict[str, Board[DeviceList]] = attrs.Factory(dict)
    """By resource with a live subtree: the list for the kubelet."""
    driver: "DriverState | None" = None
    """None: cards are offered through the device plugin API."""
    hami: "HamiState | None" = None
    """None: HAMi's scheduler is not asked."""
    node_events: "NodeEventsState | None" = None
    """None: no Events are written, since the daemon has no API access."""
    cdi_file: "Board[OnDisk] | None" = None
    """The content of the node's CDI file; None without CDI."""
    kubelet_view: Board[KubeletView] = attrs.Factory(Board)
    """The kubelet's last answer on its pod-resources socket."""
    holding: HolderMemory = attrs.Factory(HolderMemory)
    """Who holds which card, by the kubelet's answers and by what was allocated since."""
    doubts: Board[Doubt] = attrs.Factory(Board)
    """Until when the kubelet is asked often: see `doubt_for`."""
    rivals: dict[str, Rival] = attrs.Factory(dict)
    """By resource that another plugin has taken, or may have."""
    health_times: HealthTimes = attrs.Factory(HealthTimes)
    """Kept by `follow_health`."""
    last_calls: LastCalls = attrs.Factory(LastCalls)
    """Calls about claims that are under way: a stopping daemon answers them before anything is cancelled."""
    troubles: dict[str, str] = attrs.Factory(dict)
    """By subject: a fault of the daemon's surroundings that lasts, as a sentence."""
    started: float = attrs.Factory(trio.current_time)

    def notice_of(self, subject: str, intro: str = "") -> Notice:
        """Return a notice whose cause, behind `intro`, is one of `troubles` for as long as it lasts."""

        def show(cause: str) -> None:
            if cause:
                self.troubles[subject] = f"{intro}{cause}"
            else:
                self.troubles.pop(subject, None)

        return Notice(show)

    def doubt_for(self, seconds: float) -> None:
        """Have the kubelet asked often for this time, since a registration may not count."""
        before, now = self.doubts.latest or Doubt(), trio.current_time()
        if before.until < now:
            self.ask_soon(seconds)
        else:
            self.doubts.post(attrs.evolve(before, until=max(before.until, now + seconds)))

    def ask_soon(self, seconds: float) -> None:
        """Have the kubelet asked soon, and often for this time, since its answer is about to change."""
        view, before = self.kubelet_view.latest, self.doubts.latest or Doubt()
        asked = view.at if view is not None else -math.inf
        doubt = before.announcing(trio.current_time(), asked, seconds)
        if doubt is not before:
            self.doubts.post(doubt)

    async def ask_kubelet(self, seconds: float, *, with_holders: bool = False) -> None:
        """Have the kubelet asked at once, and often for this time, until it has answered.

        `with_holders`: until an answer shows who holds what.
        """
        asked, doubt = trio.current_time(), self.doubts.latest or Doubt()
        until = max(doubt.until, asked + seconds)
        self.doubts.post(attrs.evolve(doubt, until=until, waiting=doubt.waiting + 1))

        def answers(view: KubeletView) -> bool:
            return view.at >= asked and not (with_holders and view.holders is None)

        with trio.move_on_at(asked + seconds):
            await self.kubelet_view.wait_for(answers)

    @contextmanager
    def life_of(
        self, resource: str, registered: Board[bool], offered: Board[DeviceList]
    ) -> Iterator[None]:
        """Register the boards of one life of the resource's subtree, for as long as the block."""
        self.registered[resource], self.offered[resource] = registered, offered
        try:
            yield
        finally:
            # A successor may exist already: a lost resource can return at any time.
            if self.registered.get(resource) is registered:
                del self.registered[resource], self.offered[resource]

    def sent_inventory(self) -> Inventory:
        """Return the inventory as sent to the kubelet, after CDI withheld devices."""
        inventory = self.inventory.latest or Inventory()
        boards = [self.offered.get(each.resource) for each in inventory.lists]
        lists = tuple(
            board.latest if board is not None and board.latest is not None else each
            for board, each in zip(boards, inventory.lists, strict=True)
        )
        return attrs.evolve(inventory, lists=lists)

    def monitored(self) -> list[DeviceList]:
        """Return the list of the resource for monitoring; none where that is not offered."""
        board = self.offered.get(MONITORING_RESOURCE)
        return [board.latest] if board is not None and board.latest is not None else []

    def is_registered(self, resource: str) -> bool:
        """Return whether the kubelet accepted the registration of `resource` and watches."""
        if self.driver is not None:
            return self.driver.registered
        board = self.registered.get(resource)
        return board is not None and bool(board.latest)

    def stuck(self) -> list[str]:
        """Return a sentence for each loop that makes no progress; none: the daemon is live."""
        now = trio.current_time()
        sentences = []
        for loop, interval in self.intervals.items():
            turn = self.counters.turns.get(loop)
            idle = now - (turn.at if turn is not None else self.started)
            if idle > interval + SLACK:
                sentences.append(f"{loop}: no progress for {idle:.0f} s")
        return sentences

    def unready(self) -> list[str]:
        """Return a sentence for each thing that the daemon still waits for; none: the daemon is ready.

        An instance that stands by is ready, unless the holder serves nothing: a rolling update ends the old
        pod only when the new one is ready.
        """
        if self.role == "standing by":
            return [self.hindrance] if self.hindrance else []
        if (inventory := self.inventory.latest) is None:
            return ["the host has not been read yet"]
        if self.driver is not None:
            return self._driver_unready(self.driver)
        resources = [each.resource for each in inventory.lists]
        if resources and self.role == "waiting":
            return [self.hindrance or "the kubelet's directory has not been read yet"]
        return [
            self.rivals[resource].describe(resource)
            if resource in self.rivals
            else f"{resource}: not registered with the kubelet"
            for resource in resources
            if not self.is_registered(resource)
        ]

    def _driver_unready(self, driver: "DriverState") -> list[str]:
        if driver.refusal:
            return [f"the kubelet refused the driver: {driver.refusal}"]
        if not driver.registered:
            return ["the driver is not registered with the kubelet"]
        if driver.forbidden:
            return [
                f"the API server refuses: {', '.join(driver.forbidden)}; see docs/dra.md for the rights"
            ]
        return [driver.trouble] if driver.trouble else []


async def follow_health(state: DaemonState) -> None:
    """Note when each device becomes healthy or unhealthy."""
    with state.inventory.subscribe() as inventories:
        async for current in inventories:
            state.health_times.update(current, time.time())
