"""What the running daemon knows and does, for those who look at it, and what of that is not well."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.health_times import HealthTimes
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.host.cdi_owner import OnDisk
from biren_plugin.tally import Tally

Role = Literal["waiting", "standing by", "serving"]
"""Waiting for the kubelet's folder, for another instance to let go of it, or for nothing."""

SLACK: Final = 30.0
"""Seconds beyond its interval after which a loop that made no turn is stuck: a hung driver costs a
turn 5 s, a failure a wait of 15 s."""


@attrs.define
class DaemonState:
    """Belongs to the daemon; whoever else has it only reads."""

    observed: Board[Observed]
    inventory: Board[Inventory]
    tally: Tally
    intervals: dict[str, float]
    """Seconds between turns, by name of each loop that looks at something."""
    role: Role = "waiting"
    registered: dict[str, Board[bool]] = attrs.Factory(dict)
    """By resource whose subtree lives: whether the kubelet took the registration and watches."""
    offered: dict[str, Board[DeviceList]] = attrs.Factory(dict)
    """By resource whose subtree lives: what the kubelet is told."""
    cdi_file: Board[OnDisk] | None = None
    """What the node's CDI file holds; None without CDI."""
    health_times: HealthTimes = attrs.Factory(HealthTimes)
    """Kept by `follow_health`."""
    started: float = attrs.Factory(trio.current_time)

    def stand_by(self) -> None:
        """Another instance holds the node."""
        self.role = "standing by"

    @contextmanager
    def life_of(
        self, resource: str, registered: Board[bool], offered: Board[DeviceList]
    ) -> Iterator[None]:
        """One life of the resource's subtree, which tells both boards, is as long as the block."""
        self.registered[resource], self.offered[resource] = registered, offered
        try:
            yield
        finally:
            # A successor may have come meanwhile: a resource that is lost returns at any time.
            if self.registered.get(resource) is registered:
                del self.registered[resource], self.offered[resource]

    def told(self) -> Inventory:
        """The inventory with each list as the kubelet is told it: CDI may have had a say after it."""
        inventory = self.inventory.latest or Inventory()
        boards = [self.offered.get(each.resource) for each in inventory.lists]
        lists = tuple(
            board.latest if board is not None and board.latest is not None else each
            for board, each in zip(boards, inventory.lists, strict=True)
        )
        return attrs.evolve(inventory, lists=lists)

    def is_registered(self, resource: str) -> bool:
        """Whether the kubelet took the registration of `resource` and watches."""
        board = self.registered.get(resource)
        return board is not None and bool(board.latest)

    def stuck(self) -> list[str]:
        """A sentence for each loop that makes no progress; none: the daemon is live."""
        now = trio.current_time()
        sentences = []
        for loop, interval in self.intervals.items():
            turn = self.tally.turns.get(loop)
            idle = now - (turn.at if turn is not None else self.started)
            if idle > interval + SLACK:
                sentences.append(f"{loop}: no progress for {idle:.0f} s")
        return sentences

    def unready(self) -> list[str]:
        """A sentence for each thing that is still to come; none: the daemon is ready.

        One that stands by is: a rolling update ends the old pod only when the new one is ready.
        """
        if self.role == "standing by":
            return []
        if (inventory := self.inventory.latest) is None:
            return ["the host has not been read yet"]
        resources = [each.resource for each in inventory.lists]
        if resources and self.role == "waiting":
            return ["the kubelet's folder is not there yet"]
        return [
            f"{resource}: not registered with the kubelet"
            for resource in resources
            if not self.is_registered(resource)
        ]


async def follow_health(state: DaemonState) -> None:
    """Notes when each device turned healthy or unhealthy."""
    with state.inventory.subscribe() as inventories:
        async for current in inventories:
            state.health_times.update(current, time.time())
