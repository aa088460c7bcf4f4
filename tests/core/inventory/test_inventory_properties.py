"""Whatever a host does, its lists end up correct, and no card leaves a list without warning."""

import itertools
from collections.abc import Iterator, Sized

import attrs
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.health.verdicts import HealthKeeper, HealthPolicy
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.physical_gpus import APPEAR_SETTLE, SPLIT_SETTLE
from biren_plugin.core.inventory.removal_delay import EMPTY_LINGER, RETIRE_AFTER
from biren_plugin.core.model import Inventory, Snapshot
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.card import Card, NodeState
from tests.support.cards import GPU, HALF, QUARTER, card
from tests.support.examples import examples

GPUS = range(4)
RESOURCES = {1: GPU, 2: HALF, 4: QUARTER}
HOLD = int(SPLIT_SETTLE + RETIRE_AFTER + EMPTY_LINGER) + 3
"""Looks, a second apart, after which everything must have come to rest."""

# How many cards a GPU shows, out of how many that it is split into.
LOOKS = {
    "absent": (0, 1),
    "whole": (1, 1),
    "halves": (2, 2),
    "quarters": (4, 4),
    "three of four": (3, 4),
    "two of four": (2, 4),
}


@attrs.frozen
class Host:
    """The state of a host: each GPU's split, how cards are numbered, what cannot be read."""

    looks: tuple[str, ...]
    numbering: str
    mute: frozenset[int] = frozenset()
    """Numbers of cards whose `physical_id` cannot be read."""
    pulled: frozenset[int] = frozenset()
    """Numbers of cards without a device node."""
    addresses: bool = True

    def numbers(self) -> dict[int, list[int]]:
        """Return the card numbers of each GPU; in some numberings, one GPU's change renames the others."""
        shown = {gpu: LOOKS[look][0] for gpu, look in enumerate(self.looks)}
        match self.numbering:
            case "apart":
                return {gpu: [gpu * 4 + n for n in range(shown[gpu])] for gpu in GPUS}
            case "elsewhere":
                return {gpu: [gpu * 4 + n + 3 for n in range(shown[gpu])] for gpu in GPUS}
            case "packed":
                free = itertools.count()
                return {gpu: [next(free) for _ in range(shown[gpu])] for gpu in GPUS}
            case _:
                free = itertools.count()
                return {gpu: [next(free) for _ in range(shown[gpu])] for gpu in reversed(GPUS)}

    def cards_of(self, gpu: int) -> Iterator[Card]:
        for number in self.numbers()[gpu]:
            yield card(
                number,
                None if number in self.mute else gpu,
                parts=LOOKS[self.looks[gpu]][1],
                address=f"0000:0{gpu}:00.0" if self.addresses else None,
                node=NodeState.MISSING if number in self.pulled else NodeState.CHARACTER_DEVICE,
            )

    def snapshot(self) -> Snapshot:
        cards = [each for gpu in GPUS for each in self.cards_of(gpu)]
        return Snapshot(tuple(sorted(cards, key=lambda each: each.number)))

    def expected(self) -> dict[str, set[str]]:
        """Return the ids that must be Healthy in the end, by resource; the oracle."""
        ids: dict[str, set[str]] = {resource: set() for resource in RESOURCES.values()}
        for gpu in GPUS:
            names = {
                f"card_{number}" for number in self.numbers()[gpu] if number not in self.pulled
            }
            if resource := RESOURCES.get(LOOKS[self.looks[gpu]][0]):
                ids[resource] |= names
        return ids


def hosts(*, mute: bool) -> st.SearchStrategy[Host]:
    numbers = st.frozensets(st.integers(0, 15), max_size=4)
    return st.builds(
        Host,
        looks=st.tuples(*[st.sampled_from(sorted(LOOKS)) for _ in GPUS]),
        numbering=st.sampled_from(["apart", "elsewhere", "packed", "backwards"]),
        mute=numbers if mute else st.just(frozenset()),
        pulled=numbers,
        addresses=st.booleans(),
    )


def histories(*, mute: bool) -> st.SearchStrategy[list[tuple[float, Host]]]:
    """Draw hosts, each with the seconds since the scan before."""
    waits = st.sampled_from([0.0, 0.02, 0.5, 0.9, 1.0, 2.0, 2.98, 3.0, 3.02, 7.0])
    return st.lists(st.tuples(waits, hosts(mute=mute)), max_size=12)


def live(history: list[tuple[float, Host]]) -> Iterator[tuple[float, Host, Inventory]]:
    """Yield the keepers' result after each scan; a card that recovers is Healthy at once."""
    keeper = InventoryKeeper()
    health = HealthKeeper(HealthPolicy(recover_after=0.0))
    now = 0.0
    for wait, host in history:
        now += wait
        seen = Observed(host.snapshot())
        yield now, host, health.judge(keeper.update(seen, now), seen, now)


def healthy(inventory: Inventory) -> dict[str, set[str]]:
    ids: dict[str, set[str]] = {resource: set() for resource in RESOURCES.values()}
    for each in inventory.lists:
        ids[each.resource] = {device.id for device in each.devices if device.healthy}
    return ids


@examples(150)
@given(histories(mute=True), hosts(mute=False))
def test_a_host_that_does_not_change_is_listed_unchanged(
    history: list[tuple[float, Host]], final: Host
) -> None:
    *_, (_, _, inventory) = live([*history, *[(1.0, final)] * HOLD])
    assert healthy(inventory) == final.expected()
    for devices in inventory.lists:
        assert devices.devices, f"{devices.resource} has no device and is still listed"
    if "three of four" not in final.looks:
        listed = [device.card for each in inventory.lists for device in each.devices]
        there = {card.name for card in listed if card.present}
        assert there == {each.name for each in final.snapshot().cards}, "a retired card is left"
        absent = {gpu for gpu in GPUS if final.looks[gpu] == "absent"}
        assert {card.physical_id for card in listed if not card.present} <= absent
        assert inventory.unsettled == ()


def test_an_unreadable_card_with_the_earlier_name_of_another_gpu_leaves_nothing_behind() -> None:
    gone = Host(("absent",) * 4, "apart")
    split = Host(("halves", "absent", "absent", "absent"), "elsewhere")
    unreadable = frozenset({0, 4})
    both = Host(("halves", "whole", "absent", "absent"), "apart", unreadable)
    one = Host(("absent", "whole", "absent", "absent"), "apart", unreadable, addresses=False)
    history = [(0.0, attrs.evolve(split, addresses=False)), (0.0, both), (0.9, one)]
    *_, (_, _, inventory) = live([*history, *[(1.0, gone)] * HOLD])
    assert {device.card.physical_id for each in inventory.lists for device in each.devices} <= set(
        GPUS
    )


@given(histories(mute=True), hosts(mute=True))
def test_a_gpu_with_one_readable_card_is_listed_completely(
    history: list[tuple[float, Host]], final: Host
) -> None:
    telling = {numbers[0] for numbers in final.numbers().values() if numbers}
    final = attrs.evolve(final, mute=final.mute - telling, addresses=True)
    *_, (_, _, inventory) = live([*history, *[(1.0, final)] * HOLD])
    assert healthy(inventory) == final.expected()


@examples(150)
@given(histories(mute=True), hosts(mute=False))
def test_the_keeper_remembers_only_existing_cards(
    history: list[tuple[float, Host]], final: Host
) -> None:
    keeper = InventoryKeeper()
    now = 0.0
    for wait, host in [*history, *[(1.0, final)] * HOLD]:
        now += wait
        keeper.update(Observed(host.snapshot()), now)
    remembered = sum(len(each) for each in vars(keeper).values() if isinstance(each, Sized))
    assert remembered <= len(GPUS) + len(final.snapshot().cards) + len(RESOURCES)


@examples(250)
@given(histories(mute=True))
def test_no_card_leaves_a_list_before_it_was_unhealthy_long_enough(
    history: list[tuple[float, Host]],
) -> None:
    unhealthy_since: dict[tuple[str, str], float] = {}
    before: set[tuple[str, str]] = set()
    for now, _, inventory in live(history):
        listed = {
            (device.resource, device.id): device
            for each in inventory.lists
            for device in each.devices
        }
        for left in before - listed.keys():
            assert left in unhealthy_since, f"{left} left while it was Healthy"
            assert now - unhealthy_since.pop(left) >= RETIRE_AFTER, f"{left} left too early"
        for key, device in listed.items():
            if device.healthy:
                unhealthy_since.pop(key, None)
            else:
                unhealthy_since.setdefault(key, now)
        before = set(listed)


@given(histories(mute=True))
def test_no_resource_is_removed_before_its_list_was_empty_for_a_while(
    history: list[tuple[float, Host]],
) -> None:
    empty_since: dict[str, float] = {}
    before: set[str] = set()
    for now, _, inventory in live(history):
        listed = {each.resource for each in inventory.lists}
        for gone in before - listed:
            assert gone in empty_since, f"{gone} went while it had devices"
            assert now - empty_since.pop(gone) >= EMPTY_LINGER, f"{gone} went too early"
        for each in inventory.lists:
            if each.devices:
                empty_since.pop(each.resource, None)
            else:
                empty_since.setdefault(each.resource, now)
        before = listed


@given(histories(mute=True))
def test_no_id_is_listed_twice_or_healthy_under_two_resources(
    history: list[tuple[float, Host]],
) -> None:
    for _, _, inventory in live(history):
        for each in inventory.lists:
            ids = [device.id for device in each.devices]
            assert len(ids) == len(set(ids))
            assert [device.card.number for device in each.devices] == sorted(
                device.card.number for device in each.devices
            )
            assert {device.resource for device in each.devices} <= {each.resource}
        usable = [name for ids in healthy(inventory).values() for name in ids]
        assert len(usable) == len(set(usable))


@given(histories(mute=False))
def test_every_healthy_device_is_present_and_split_as_its_resource_requires(
    history: list[tuple[float, Host]],
) -> None:
    for _, host, inventory in live(history):
        present = host.expected()
        for resource, ids in healthy(inventory).items():
            assert ids <= present[resource]


@given(histories(mute=False))
def test_no_look_is_believed_before_it_has_settled(history: list[tuple[float, Host]]) -> None:
    """Except cards present at the start, and a GPU that returns to its accepted split."""
    # A card without its node is believed, and cannot be told from one that is not.
    history = [(wait, attrs.evolve(host, pulled=frozenset())) for wait, host in history]
    looks: dict[int, tuple[set[str], float]] = {}
    believed: dict[int, set[str]] = {}
    absent: set[int] = set()
    for round_, (now, host, inventory) in enumerate(live(history)):
        believable = {
            device.id for each in inventory.lists for device in each.devices if device.healthy
        }
        for gpu, numbers in host.numbers().items():
            names = {f"card_{number}" for number in numbers}
            if gpu not in looks or looks[gpu][0] != names:
                looks[gpu] = (names, now)
            if not names:
                absent.add(gpu)  # and when it comes back, it may count as a new one
            if not names & believable:
                continue
            known = gpu in believed and gpu not in absent
            settle = SPLIT_SETTLE if known else APPEAR_SETTLE
            back = believed.get(gpu) == names
            assert round_ == 0 or back or now - looks[gpu][1] >= settle
            believed[gpu] = names
            absent.discard(gpu)
