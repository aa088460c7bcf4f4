"""After any sequence of faults, recoveries, re-splits and failing probes, verdicts match the final state."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.health.recovery import LONGEST
from biren_plugin.core.health.verdicts import HealthKeeper, HealthPolicy
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.model import Inventory, Snapshot
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, KnownCard, LibraryFacts, LibraryStatus
from biren_plugin.core.parse.card import Card, FunctionState, NodeState
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from tests.support.cards import card
from tests.support.examples import examples

GPUS: Final = range(4)
STEADY: Final = 30.0
FACTS = LibraryFacts("libbiren-ml.so.1")

Unit = tuple[int, int]
"""A GPU and an instance of it."""


@attrs.frozen
class Host:
    """The state of a host at one moment. Faults of missing units have no effect."""

    splits: tuple[int, ...]
    """Of each GPU; 0: not there."""
    pulled: frozenset[Unit] = frozenset()
    silent: frozenset[Unit] = frozenset()
    hung: frozenset[Unit] = frozenset()
    critical: frozenset[Unit] = frozenset()
    library_hung: frozenset[Unit] = frozenset()
    risen: Mapping[Unit, int] = attrs.Factory(dict)
    """Counters of fatal errors."""
    module: bool = True
    library: bool = True
    """Whether it is there."""

    def units(self) -> Iterator[Unit]:
        for gpu in GPUS:
            yield from ((gpu, instance) for instance in range(self.splits[gpu]))

    def card(self, unit: Unit) -> Card:
        gpu = unit[0]
        plain = card(number_of(unit), gpu, parts=self.splits[gpu])
        return attrs.evolve(
            plain,
            node=NodeState.MISSING if unit in self.pulled else NodeState.CHARACTER_DEVICE,
            function=FunctionState.SILENT if unit in self.silent else FunctionState.ANSWERS,
            hung=unit in self.hung,
            aer_fatal=self.risen.get(unit, 0),
        )

    def observed(self, now: float) -> Observed:
        cards = tuple(self.card(unit) for unit in self.units())
        if not self.library:
            return Observed(Snapshot(cards, module_loaded=self.module))
        known = {number_of((gpu, i)): KnownCard(gpu, self.splits[gpu]) for gpu, i in self.units()}
        readings = {
            number_of(unit): CardReading(
                number_of(unit),
                status=LibraryStatus.CRITICAL if unit in self.critical else LibraryStatus.OK,
            )
            for unit in self.units()
            if unit not in self.library_hung
        }
        hung = frozenset(number_of(unit) for unit in self.units() if unit in self.library_hung)
        round_ = LibraryRound(now, FACTS, known, readings, hung)
        return Observed(Snapshot(cards, module_loaded=self.module), round_)

    def condemned_by_each(self) -> list[frozenset[Unit]]:
        """Return the units that each indirect probe condemns in this state."""
        by_library = [self.critical, self.library_hung] if self.library else []
        return [self.silent, self.hung, *by_library]

    def without_trouble_of(self, unit: Unit) -> "Host":
        return attrs.evolve(
            self,
            pulled=self.pulled - {unit},
            silent=self.silent - {unit},
            hung=self.hung - {unit},
            critical=self.critical - {unit},
            library_hung=self.library_hung - {unit},
            risen={each: count for each, count in self.risen.items() if each != unit},
        )

    def standing(self) -> set[Unit]:
        return {unit for unit in self.units() if unit not in self.pulled}

    def well(self) -> set[Unit]:
        """Return the units that must be Healthy in the end; the oracle."""
        sick = frozenset().union(*self.condemned_by_each())
        return {unit for unit in self.standing() if unit not in sick}

    def tells_cards_apart(self) -> bool:
        """Return whether no probe condemns all present units; otherwise the verdict depends on history."""
        return not any(self.standing() <= condemned for condemned in self.condemned_by_each())


def number_of(unit: Unit) -> int:
    return unit[0] * 4 + unit[1]


units = st.tuples(st.sampled_from(GPUS), st.integers(0, 3))
few = st.frozensets(units, max_size=3)
mad = st.just(frozenset((gpu, instance) for gpu in GPUS for instance in range(4)))
"""A probe that condemns every card."""
hosts = st.builds(
    Host,
    splits=st.tuples(*[st.sampled_from([0, 1, 1, 2, 4]) for _ in GPUS]),
    pulled=few,
    silent=few | mad,
    hung=few,
    critical=few | mad,
    library_hung=few | mad,
    risen=st.dictionaries(units, st.integers(0, 3), max_size=3),
    module=st.sampled_from([True, True, True, False]),
    library=st.booleans(),
)
waits = st.sampled_from([0.05, 1.0, 1.0, 3.0, 9.0, 31.0])
histories = st.lists(st.tuples(waits, hosts), max_size=12)
HOLD: Final = [1.0] * 12 + [5.0] * int((LONGEST + 60) / 5)
"""Long enough for a split to settle, for what was replaced to leave, and for the longest recovery."""


def live(
    history: list[tuple[float, Host]], policy: HealthPolicy
) -> Iterator[tuple[Host, Inventory]]:
    keeper, health, now = InventoryKeeper(), HealthKeeper(policy), 0.0
    for wait, host in history:
        now += wait
        seen = host.observed(now)
        yield host, health.judge(keeper.update(seen, now), seen, now)


def healthy(inventory: Inventory) -> set[tuple[str, str]]:
    return {
        (each.resource, device.id)
        for each in inventory.lists
        for device in each.devices
        if device.healthy
    }


def expected(host: Host, chosen: Callable[[Host], set[Unit]]) -> set[tuple[str, str]]:
    return {
        (RESOURCE_OF_SPLIT[host.splits[unit[0]]], f"card_{number_of(unit)}")
        for unit in chosen(host)
    }


@examples(80)
@given(histories, hosts.filter(Host.tells_cards_apart))
def test_verdicts_end_up_matching_the_final_state(
    history: list[tuple[float, Host]], final: Host
) -> None:
    held = [*history, *[(wait, final) for wait in HOLD]]
    *_, (_, inventory) = live(held, HealthPolicy(recover_after=STEADY))
    module_is_missed = not final.module and any(host.module for _, host in history)
    assert healthy(inventory) == (set() if module_is_missed else expected(final, Host.well))
    assert not inventory.suspects


@examples(80)
@given(histories)
def test_a_missing_card_is_never_healthy(history: list[tuple[float, Host]]) -> None:
    for host, inventory in live(history, HealthPolicy(recover_after=0.0)):
        assert healthy(inventory) <= expected(host, Host.standing)


@examples(80)
@given(histories, hosts)
def test_observe_mode_condemns_only_missing_cards(
    history: list[tuple[float, Host]], final: Host
) -> None:
    held = [*history, *[(wait, final) for wait in HOLD]]
    *_, (_, inventory) = live(held, HealthPolicy(mode="observe", recover_after=STEADY))
    assert healthy(inventory) == expected(final, Host.standing)


@examples(80)
@given(histories, units)
def test_trouble_of_one_card_touches_no_other(
    history: list[tuple[float, Host]], sick: Unit
) -> None:
    """Only while no probe is suspect: otherwise one card can decide about all."""
    without = [(wait, host.without_trouble_of(sick)) for wait, host in history]
    policy = HealthPolicy(recover_after=STEADY)
    for (host, one), (_, other) in zip(live(history, policy), live(without, policy), strict=True):
        if one.suspects or other.suspects or not host.tells_cards_apart():
            return
        name = f"card_{number_of(sick)}"
        assert {each for each in healthy(one) if each[1] != name} == {
            each for each in healthy(other) if each[1] != name
        }
