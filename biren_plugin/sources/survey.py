"""Turns everything that was read from the node into its inventory, with a verdict on each card.

Only the whole node shows whether a card is faulty or a probe is wrong, and whether a GPU was re-split
or is gone; so this is no part of a resource's subtree, and outlives each of them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.health.verdicts import HealthKeeper, HealthPolicy
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.library_additions import ProductNames
from biren_plugin.core.inventory_log import remark_driver, remark_inventory, remark_lists
from biren_plugin.core.model import Inventory
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.topology import TopologyKeeper
from biren_plugin.notice import say_remarks

CALM: Final = 20.0
"""Seconds: above every time that a verdict without a fault, a split or a resource waits for."""
SELDOM: Final = 60.0
"""Seconds between two judgements of a calm node that looks the same."""


async def survey_node(
    observed: Board[Observed],
    inventory: Board[Inventory],
    policy: HealthPolicy,
    exclude: Sequence[str] = (),
    *,
    claims_count: bool = False,
) -> None:
    """Post the inventory at the first snapshot, and at each change; `exclude` as in the settings.

    With `claims_count`, a card that a claim holds is Unhealthy.
    """
    topology = TopologyKeeper()
    keeper = InventoryKeeper(exclude, claims_count=claims_count)
    health = HealthKeeper(policy)
    names = ProductNames()
    driver: str | None = None
    judged = Observed()
    calm = settled = False
    changed_at = judged_at = trio.current_time()

    def may_settle() -> bool:
        """Return whether time alone may change what is concluded from the same observations."""
        now = trio.current_time()
        idle = calm and (settled or now - changed_at > CALM)
        return not idle or now - judged_at >= SELDOM

    with observed.subscribe(repeats=may_settle) as looks:
        async for seen in looks:
            if seen.snapshot is None:
                continue
            say_remarks(remark_driver(driver, seen.driver_version))
            driver = seen.driver_version or driver
            now = trio.current_time()
            if seen != judged:
                changed_at = now
            elif not may_settle():
                continue
            judged, judged_at = seen, now
            current = health.judge(keeper.update(seen, now), seen, now)
            library = seen.library
            current = names.add(current, library.readings if library else {})
            links, ancestors = (library.links, library.ancestors) if library else ({}, {})
            latest = topology.update(_cards(current), links, ancestors)
            current = attrs.evolve(current, topology=latest)
            if current != inventory.latest:
                before = inventory.latest
                say_remarks(remark_inventory(before, current))
                say_remarks(remark_lists(before.lists if before is not None else (), current.lists))
                inventory.post(current)
                changed_at = now
            calm, settled = _is_calm(current), library is None and _is_settled(current)


def _is_calm(inventory: Inventory) -> bool:
    """Return whether no verdict changes with time alone: no card is Unhealthy or warned about."""
    devices = [device for each in inventory.lists for device in each.devices]
    return all(device.healthy and not device.warnings for device in devices)


def _is_settled(inventory: Inventory) -> bool:
    """Return whether no list waits for time either: each card that the host shows is on one, and none is empty.

    A card that only the library knows waits unseen.
    """
    listed = [len(each.devices) for each in inventory.lists]
    return all(listed) and sum(listed) == inventory.found and not inventory.unsettled


def _cards(inventory: Inventory) -> Iterable[Card]:
    """Yield all listed cards; of two with one name, the allocatable card comes last."""
    devices = [device for each in inventory.lists for device in each.devices]
    devices.sort(key=lambda device: (device.card.present, device.healthy))
    return (device.card for device in devices)
