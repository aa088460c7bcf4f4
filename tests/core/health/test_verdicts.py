"""Verdicts over time: which findings count, which are set aside, and what remains of a past fault."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest

from biren_plugin.core.health.modes import HealthMode
from biren_plugin.core.health.verdicts import MOMENT, HealthKeeper, HealthPolicy
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory.physical_gpus import SPLIT_SETTLE
from biren_plugin.core.model import Device, Inventory, Snapshot
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, KnownCard, LibraryFacts, LibraryStatus
from biren_plugin.core.parse.card import Card, FunctionState, NodeState
from tests.support.cards import card, gpu_cards

FACTS = LibraryFacts("libbiren-ml.so.1")
EIGHT = tuple(
    attrs.evolve(card(number, number), function=FunctionState.ANSWERS) for number in range(8)
)


class Node:
    """The keepers of one daemon, and a clock that each reading sets."""

    def __init__(self, **policy: Any) -> None:
        self._inventory = InventoryKeeper()
        self._health = HealthKeeper(HealthPolicy(**{"recover_after": 30.0, **policy}))
        self.now = 0.0
        self.latest = Inventory()

    def look(
        self,
        cards: Sequence[Card],
        at: float | None = None,
        module: bool | None = True,
        driver: bool = True,
        **seen: Any,
    ) -> Mapping[str, Device]:
        """Return the devices by id after a reading, one second after the last, or at `at`."""
        self.now = self.now + 1.0 if at is None else at
        snapshot = Snapshot(tuple(cards), driver_loaded=driver, module_loaded=module)
        observed = Observed(snapshot, **seen)
        self.latest = self._health.judge(
            self._inventory.update(observed, self.now), observed, self.now
        )
        return {each.id: each for one in self.latest.lists for each in one.devices}


def sick(cards: Sequence[Card], *numbers: int, **faults: Any) -> list[Card]:
    """Return the cards, faulty those with these numbers; all of them without a number."""
    chosen = numbers or tuple(each.number for each in cards)
    return [attrs.evolve(each, **faults) if each.number in chosen else each for each in cards]


def silent(*numbers: int) -> list[Card]:
    return sick(EIGHT, *numbers, function=FunctionState.SILENT)


def unhealthy(devices: Mapping[str, Device]) -> set[str]:
    return {id_ for id_, device in devices.items() if not device.healthy}


def library(
    numbers: Sequence[int] = range(8), hung: Sequence[int] = (), **said: Mapping[int, Any]
) -> LibraryRound:
    """A round that knows these cards; `said` gives fields of readings by number."""
    readings = {
        number: CardReading(
            number, **{field: values[number] for field, values in said.items() if number in values}
        )
        for number in numbers
        if number not in hung
    }
    known = {number: KnownCard(number) for number in numbers}
    return LibraryRound(0.0, FACTS, known, readings, frozenset(hung))


def test_a_faulty_card_alone_is_out_of_service_and_returns_after_its_steady_time() -> None:
    node = Node(recover_after=5.0)
    assert not unhealthy(node.look(EIGHT))
    devices = node.look(silent(3))
    assert unhealthy(devices) == {"card_3"}
    assert "answers 0xFF" in devices["card_3"].reasons[0]
    for _ in range(5):
        assert unhealthy(node.look(EIGHT)) == {"card_3"}
    assert not unhealthy(node.look(EIGHT))


def test_a_warning_is_shown_but_does_not_count() -> None:
    device = Node().look(EIGHT, library=library(status={2: LibraryStatus.WARNING}))["card_2"]
    assert device.healthy
    assert "health status warning" in device.warnings[0]


def test_a_card_without_a_reading_is_healthy() -> None:
    node = Node()
    assert not unhealthy(node.look(EIGHT, library=library(numbers=(0,))))
    assert node.look(EIGHT, library=library(numbers=(0,)))["card_1"].warnings, "it is unknown there"


def test_only_the_card_whose_calls_hang_is_out_of_service() -> None:
    devices = Node().look(EIGHT, library=library(hung=[5]))
    assert unhealthy(devices) == {"card_5"}
    assert "did not answer for 5 s" in devices["card_5"].reasons[0]


def test_an_unloaded_module_condemns_all_cards_and_a_missing_one_none() -> None:
    node = Node()
    assert not unhealthy(node.look(EIGHT, module=False)), "a driver may be built in"
    assert not unhealthy(node.look(EIGHT, module=True))
    assert not unhealthy(node.look(EIGHT, module=None)), "missing data is no fault"
    assert len(unhealthy(node.look(EIGHT, module=False))) == 8


@pytest.mark.parametrize(
    ("left", "module"),
    [
        (EIGHT[:0], False),
        (EIGHT[:0], True),
        (EIGHT[3:], False),
        (sick(EIGHT, node=NodeState.MISSING), False),
    ],
    ids=["all gone", "class gone, module still there", "some gone", "nodes gone"],
)
def test_an_unloaded_module_is_the_only_reason_of_its_cards(
    left: Sequence[Card], *, module: bool
) -> None:
    node = Node()
    node.look(EIGHT)
    devices = node.look(left, module=module, driver=bool(left))
    assert {device.reasons for device in devices.values()} == {
        ("the driver's module was unloaded; on the node: `modprobe biren`",)
    }
    back = node.look(EIGHT)["card_0"].reasons
    assert "modprobe" in back[0]
    assert node.look(EIGHT)["card_0"].recovering


class TestSuspects:
    """A probe that condemns every card of a node at once is itself the suspect."""

    def test_a_probe_that_condemns_all_cards_is_set_aside_with_a_warning(self) -> None:
        node = Node()
        node.look(EIGHT)
        devices = node.look(silent())
        assert not unhealthy(devices)
        assert all(
            "not counted, as the probe is suspect" in d.warnings[0] for d in devices.values()
        )
        [suspect] = node.latest.suspects
        assert "pci-config condemned all 8 cards" in suspect

    def test_cards_that_failed_one_by_one_within_a_moment_return(self) -> None:
        node = Node()
        node.look(EIGHT)
        for number in range(7):
            assert len(unhealthy(node.look(silent(*range(number + 1))))) == number + 1
        assert not unhealthy(node.look(silent()))

    def test_cards_that_failed_over_a_long_time_stay_condemned(self) -> None:
        node = Node()
        node.look(EIGHT)
        for number in range(8):
            devices = node.look(silent(*range(number + 1)), at=node.now + MOMENT / 2 + 1)
        assert len(unhealthy(devices)) == 8
        assert not node.latest.suspects

    def test_a_suspect_probe_counts_again_once_it_finds_a_card_healthy(self) -> None:
        node = Node()
        node.look(EIGHT)
        node.look(silent())
        node.look(silent(), at=MOMENT + 5)
        assert not unhealthy(node.look(silent(1))), "one that just came round may bring the others"
        devices = node.look(silent(1), at=node.now + MOMENT)
        assert unhealthy(devices) == {"card_1"}
        assert not node.latest.suspects

    def test_cards_that_recover_one_by_one_are_not_condemned_meanwhile(self) -> None:
        node = Node()
        node.look(EIGHT)
        node.look(EIGHT, library=library(hung=range(8)))
        for number in range(8):
            assert not unhealthy(node.look(EIGHT, library=library(hung=range(number, 8))))
        node.look(EIGHT, library=library(), at=node.now + MOMENT)
        assert not node.latest.suspects

    def test_an_earlier_faulty_card_stays_condemned_when_its_probe_becomes_suspect(self) -> None:
        node = Node()
        node.look(EIGHT)
        node.look(silent(3))
        assert unhealthy(node.look(silent(), at=node.now + MOMENT + 1)) == {"card_3"}
        [suspect] = node.latest.suspects
        assert "pci-config condemned all 7 other cards" in suspect
        [reason] = node.look(silent(*(set(range(8)) - {3})))["card_3"].reasons
        assert "recovered and returns to service after" in reason, "and recovers as any other"

    @pytest.mark.parametrize(
        ("dumb", "mad"),
        [
            ({"hung": True}, {"function": FunctionState.SILENT}),
            ({"function": FunctionState.UNKNOWN}, {"function": FunctionState.SILENT}),
            ({"aer_fatal": None}, {"aer_fatal": 1}),
        ],
    )
    def test_a_card_without_sysfs_data_is_not_counted(
        self, dumb: dict[str, Any], mad: dict[str, Any]
    ) -> None:
        before = sick(sick(EIGHT, aer_fatal=0), 5, **dumb)
        node = Node()
        node.look(before)
        devices = node.look(sick(before, *(set(range(8)) - {5}), **mad))
        assert unhealthy(devices) <= {"card_5"}
        assert node.latest.suspects

    @pytest.mark.parametrize(
        ("field", "good", "bad"),
        [
            ("status", LibraryStatus.OK, LibraryStatus.ERROR),
            ("ecc_uncorrected", 0, 1),
            ("temperature", 40, 120),
            ("svi_current", 1, 4),
            ("timed_out", False, True),
        ],
    )
    def test_a_card_without_library_data_is_not_counted(
        self, field: str, good: object, bad: object
    ) -> None:
        limits = {"shutdown_temperature": dict.fromkeys(range(8), 100)}
        others = [number for number in range(8) if number != 5]
        node = Node()
        for value in (good, bad):
            said: dict[str, Any] = {field: dict.fromkeys(others, value), **limits}
            devices = node.look(EIGHT, library=library(numbers=others, **said))
        assert not unhealthy(devices)
        assert node.latest.suspects

    def test_a_new_card_does_not_clear_a_suspect_probe(self) -> None:
        node = Node()
        node.look(EIGHT[:7])
        node.look(silent()[:7])
        for _ in range(3):
            assert not unhealthy(node.look([*silent()[:7], EIGHT[7]]))
        assert node.latest.suspects
        devices = node.look([*silent()[:7], EIGHT[7]], at=node.now + MOMENT)
        assert len(unhealthy(devices)) == 7

    def test_vanished_cards_are_not_counted(self) -> None:
        node = Node()
        node.look(EIGHT)
        pulled = sick(EIGHT, 7, node=NodeState.MISSING)
        seven = sick(pulled, *range(7), function=FunctionState.SILENT)
        assert unhealthy(node.look(seven)) == {"card_7"}
        assert node.latest.suspects

    @pytest.mark.parametrize("gpus", [1, 2])
    def test_a_node_with_two_gpus_is_too_small_to_suspect_a_probe(self, gpus: int) -> None:
        node = Node()
        node.look(EIGHT[:gpus])
        assert len(unhealthy(node.look(silent()[:gpus]))) == gpus

    def test_a_node_with_three_gpus_is_large_enough_to_suspect_a_probe(self) -> None:
        node = Node()
        node.look(EIGHT[:3])
        assert not unhealthy(node.look(silent()[:3]))
        pulled = [*silent()[:2], attrs.evolve(EIGHT[2], node=NodeState.MISSING)]
        assert unhealthy(node.look(pulled)) == {"card_2"}, "and stays so when one is pulled"

    def test_a_daemon_that_starts_on_a_node_with_only_faulty_cards_suspects_the_probe(self) -> None:
        node = Node()
        assert not unhealthy(node.look(silent()))
        assert node.latest.suspects

    def test_a_moment_includes_its_last_instant(self) -> None:
        for late, condemned in ((0.0, 0), (0.1, 3)):
            node = Node()
            node.look(EIGHT[:3])
            node.look(silent(0)[:3])
            devices = node.look(silent()[:3], at=node.now + MOMENT + late)
            assert len(unhealthy(devices)) == condemned

    def test_instances_of_one_gpu_do_not_count_separately(self) -> None:
        quarters = gpu_cards(0, 0, 1, 2, 3)
        node = Node()
        node.look(quarters)
        assert len(unhealthy(node.look(sick(quarters, function=FunctionState.SILENT)))) == 4

    def test_device_nodes_are_never_suspect(self) -> None:
        node = Node()
        node.look(EIGHT)
        assert len(unhealthy(node.look(sick(EIGHT, node=NodeState.MISSING)))) == 8

    def test_the_binding_probe_is_never_suspect(self) -> None:
        groups = [
            attrs.evolve(card(number, number << 8, parts=1), name=f"/dev/vfio/{number}", split=1)
            for number in range(4)
        ]
        node = Node()
        node.look(groups)
        devices = node.look(sick(groups, unbound=("0000:01:00.0 (biren)",)))
        assert len(unhealthy(devices)) == 4

    def test_cards_whose_attributes_hang_are_out_of_service_while_others_can_be_read(self) -> None:
        node = Node()
        assert unhealthy(node.look(sick(EIGHT, 1, 3, 5, hung=True))) == {
            "card_1",
            "card_3",
            "card_5",
        }
        assert not node.latest.suspects

    def test_a_library_that_hangs_for_all_cards_is_suspect(self) -> None:
        node = Node()
        node.look(EIGHT)
        assert not unhealthy(node.look(EIGHT, library=library(hung=range(8))))
        assert "library-hang" in node.latest.suspects[0]


class TestModes:
    """An operator can watch verdicts before they count, or detect missing cards only."""

    def test_in_observe_mode_a_verdict_is_a_warning(self) -> None:
        node = Node(mode="observe")
        node.look(EIGHT)
        device = node.look(silent(3))["card_3"]
        assert device.healthy
        assert "observed, not counted: its PCI function" in device.warnings[0]

    def test_in_observe_mode_a_recovery_takes_the_usual_time(self) -> None:
        node = Node(mode="observe", recover_after=3.0)
        node.look(EIGHT)
        node.look(silent(3))
        assert "observed, not counted: it has recovered" in node.look(EIGHT)["card_3"].warnings[0]
        for _ in range(3):
            last = node.look(EIGHT)["card_3"]
        assert not last.warnings

    @pytest.mark.parametrize("mode", ["enforce", "observe", "off"])
    def test_a_missing_card_counts_in_every_mode(self, mode: HealthMode) -> None:
        node = Node(mode=mode)
        node.look(EIGHT)
        assert unhealthy(node.look(sick(EIGHT, 2, node=NodeState.MISSING))) == {"card_2"}

    def test_mode_off_detects_only_missing_cards(self) -> None:
        node = Node(mode="off")
        node.look(EIGHT)
        device = node.look(silent(3))["card_3"]
        assert device.healthy
        assert not device.warnings

    def test_a_disabled_probe_is_not_run(self) -> None:
        node = Node(disabled=frozenset({"pci-config"}))
        node.look(EIGHT)
        assert not unhealthy(node.look(silent(3)))

    def test_one_probe_is_enforced_while_the_others_are_observed(self) -> None:
        node = Node(mode="observe", probes={"pci-config": "enforce"})
        node.look(EIGHT)
        devices = node.look(sick(silent(3), 4, hung=True))
        assert unhealthy(devices) == {"card_3"}
        assert devices["card_4"].warnings[0].startswith("observed, not counted: reading its")

    def test_one_probe_is_observed_while_the_others_are_enforced(self) -> None:
        node = Node(probes={"pci-config": "observe"})
        node.look(EIGHT)
        devices = node.look(sick(silent(3), 4, hung=True))
        assert unhealthy(devices) == {"card_4"}
        assert devices["card_3"].warnings[0].startswith("observed, not counted: its PCI function")

    def test_the_mode_of_one_probe_takes_precedence_over_what_disables_it(self) -> None:
        node = Node(
            mode="off", disabled=frozenset({"pci-config"}), probes={"pci-config": "enforce"}
        )
        node.look(EIGHT)
        assert unhealthy(node.look(silent(3))) == {"card_3"}


class TestIdentity:
    """A card is identified by GPU and instance: a new name changes nothing, a new split everything."""

    def test_a_renamed_card_is_still_faulty(self) -> None:
        node = Node()
        node.look(EIGHT)
        node.look(silent(3))
        renamed = [
            *EIGHT[:3],
            attrs.evolve(EIGHT[3], name="card_11", number=11),
            *EIGHT[4:],
        ]
        node.look(renamed)
        devices = node.look(renamed, at=node.now + SPLIT_SETTLE)
        assert unhealthy(devices) == {"card_3", "card_11"}
        assert "replaced" in devices["card_3"].reasons[0]
        assert "has recovered" in devices["card_11"].reasons[0]

    def test_a_new_split_starts_without_a_history(self) -> None:
        node = Node()
        node.look(EIGHT)
        node.look(silent(7))
        anew = [*EIGHT[:7], *gpu_cards(7, 8, 9)]
        node.look(anew)
        node.look(anew, at=node.now + SPLIT_SETTLE)
        devices = node.look(anew, at=node.now + 10)
        assert not unhealthy(devices)
        assert {"card_8", "card_9"} <= devices.keys()
        node.look(EIGHT)
        assert not node.look(EIGHT, at=node.now + SPLIT_SETTLE)["card_7"].reasons

    def test_a_counter_of_another_gpu_with_the_same_name_is_not_a_rise(self) -> None:
        counts = {0: 0, 1: 900}
        cards = [attrs.evolve(card(gpu, gpu), aer_fatal=counts[gpu]) for gpu in (0, 1)]
        swapped = [attrs.evolve(card(gpu, 1 - gpu), aer_fatal=counts[1 - gpu]) for gpu in (0, 1)]
        node = Node()
        node.look(cards)
        for _ in range(6):
            devices = node.look(swapped)
        assert not unhealthy(devices)


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_an_unsettled_card_does_not_count_as_healthy(mode: HealthMode) -> None:
    node = Node(recover_after=30.0, mode=mode)
    node.look(EIGHT)
    node.look(silent(3))
    node.look(EIGHT)
    node.look([*EIGHT[:3], *gpu_cards(3, 3, 8, 9), *EIGHT[4:]])
    device = node.look(EIGHT, at=node.now + 60)["card_3"]
    assert "recovered and returns to service after" in (*device.reasons, *device.warnings)[0]


def test_a_replaced_card_keeps_the_reason_for_its_retirement() -> None:
    node = Node()
    node.look(EIGHT)
    anew = [*EIGHT[:7], *gpu_cards(7, 8, 9)]
    node.look(anew)
    device = node.look(anew, at=node.now + SPLIT_SETTLE)["card_7"]
    assert device.reasons == ("replaced by a new split of GPU 7",)


def test_garbage_in_an_attribute_is_reported_at_the_start_and_later() -> None:
    keeper, health = InventoryKeeper(), HealthKeeper()
    sound = card(0, 3)
    garbage = attrs.evolve(sound, physical_id=None, misread=("physical_id reads 'N/A'",))
    for now, seen in ((0.0, Observed(Snapshot((sound,)))), (1.0, Observed(Snapshot((garbage,))))):
        running = health.judge(keeper.update(seen, now), seen, now)
    device = running.find("card_0")
    assert device is not None
    assert device.healthy
    assert "physical_id reads 'N/A'" in device.warnings[0]
    [starting] = InventoryKeeper().update(Observed(Snapshot((garbage,))), 0.0).unsettled
    assert "physical_id reads 'N/A'" in starting
