"""A daemon's state without a daemon, for tests of the modules that read it."""

from biren_plugin.board import Board
from biren_plugin.core.model import DeviceList, HostFacts, Inventory
from biren_plugin.core.observed import Holders, LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, LibraryFacts
from biren_plugin.daemon_state import Counters, DaemonState


def new_state(*lists: DeviceList, **intervals: float) -> DaemonState:
    """A serving daemon, all of whose resources are registered; call it inside trio."""
    state = DaemonState(Board(), Board(), Counters(), intervals, role="serving")
    hold(state, *lists)
    for each in lists:
        register(state, each.resource)
    return state


def hold(state: DaemonState, *lists: DeviceList) -> None:
    """From now on the node has this inventory."""
    inventory = Inventory(lists, host=HostFacts())
    state.inventory.post(inventory)
    state.health_times.update(inventory, 1_700_000_000.0)


def register(state: DaemonState, resource: str, *, taken: bool = True) -> None:
    """The resource has a subtree, and its registration was taken or not."""
    state.registered[resource], state.offered[resource] = Board(), Board()
    state.registered[resource].post(taken)


def observe(
    state: DaemonState,
    *readings: CardReading,
    holders: Holders | None,
    hung: frozenset[int] = frozenset(),
) -> None:
    """The last reports of library and kubelet."""
    library = LibraryRound(
        0.0, LibraryFacts(""), {}, {each.number: each for each in readings}, hung
    )
    state.observed.post(Observed(library=library, holders=holders))
