"""The survey posts the node's inventory when it changes, and logs what an operator must know."""

import logging
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.board import Board
from biren_plugin.core.health.verdicts import HealthKeeper, HealthPolicy
from biren_plugin.core.inventory.physical_gpus import SPLIT_SETTLE
from biren_plugin.core.model import Inventory, Snapshot
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import LibraryFacts, P2PLink
from biren_plugin.core.parse.card import NodeState
from biren_plugin.sources.survey import CALM, SELDOM, survey_node
from tests.support.cards import GPU, QUARTER, gpu_cards, ids, snapshot
from tests.support.clocks import jump

ONE = Observed(snapshot(*gpu_cards(0, 0)))
TWO = Observed(snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1)))


@pytest.fixture
def observed() -> Board[Observed]:
    return Board[Observed]()


@pytest.fixture
def inventory(
    observed: Board[Observed], nursery: trio.Nursery, mock_clock: MockClock
) -> Board[Inventory]:
    """The inventory of a running survey."""
    board = Board[Inventory]()
    nursery.start_soon(survey_node, observed, board, HealthPolicy())
    return board


async def look(observed: Board[Observed], seen: Observed) -> None:
    observed.post(seen)
    await wait_all_tasks_blocked()


def listed(inventory: Board[Inventory]) -> list[str]:
    assert inventory.latest is not None
    found = inventory.latest.list_of(GPU)
    return ids(found.devices) if found is not None else []


async def test_nothing_is_posted_before_the_first_scan(
    observed: Board[Observed], inventory: Board[Inventory]
) -> None:
    await look(observed, Observed(holders={}))
    assert inventory.latest is None
    await look(observed, ONE)
    assert listed(inventory) == ["card_0"]


async def test_only_changes_are_posted(
    observed: Board[Observed], inventory: Board[Inventory]
) -> None:
    await look(observed, ONE)
    with inventory.subscribe() as posted:
        posted.receive_nowait()
        await look(observed, ONE)
        with pytest.raises(trio.WouldBlock):
            posted.receive_nowait()
        await look(observed, attrs.evolve(ONE, pulse=1))
        assert posted.receive_nowait().lists[0].pulse == 1


async def test_the_topology_is_rebuilt_only_when_its_inputs_change(
    observed: Board[Observed], inventory: Board[Inventory]
) -> None:
    told = LibraryRound(0.0, LibraryFacts(""), links={(0, 1): P2PLink.DIRECT})
    node = attrs.evolve(TWO, library=told)
    await look(observed, node)
    assert inventory.latest is not None
    first = inventory.latest.topology
    assert first.describe(["card_0", "card_1"]) == "directly linked"
    await look(observed, attrs.evolve(node, library=attrs.evolve(told, at=5.0), pulse=1))
    assert inventory.latest.topology is first
    await look(observed, attrs.evolve(node, library=attrs.evolve(told, links={})))
    assert inventory.latest.topology.describe(["card_0", "card_1"]) == "apart"


async def test_the_topology_places_a_reused_name_at_its_new_card(
    observed: Board[Observed], inventory: Board[Inventory], mock_clock: MockClock
) -> None:
    before = [*gpu_cards(0, 0), *gpu_cards(1, 1, 2, 3, 4), *gpu_cards(2, 5)]
    after = Observed(snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1), *gpu_cards(2, 2)))
    await look(observed, Observed(snapshot(*before)))
    await look(observed, after)
    await jump(mock_clock, SPLIT_SETTLE)
    await look(observed, after)
    assert inventory.latest is not None
    assert [each.resource for each in inventory.latest.lists] == [GPU, QUARTER], (
        "the whole GPU is retiring"
    )
    assert inventory.latest.topology.describe(["card_1", "card_2"]) == "apart"


async def test_a_split_settles_while_nothing_else_changes(
    observed: Board[Observed], inventory: Board[Inventory], mock_clock: MockClock
) -> None:
    await look(observed, ONE)
    await look(observed, TWO)
    assert listed(inventory) == ["card_0"]
    await jump(mock_clock, 1)
    await look(observed, TWO)
    assert listed(inventory) == ["card_0", "card_1"]


async def look_each_second(
    observed: Board[Observed], clock: MockClock, seen: Observed, seconds: float
) -> None:
    for _ in range(int(seconds)):
        await look(observed, seen)
        await jump(clock, 1)


async def test_a_resource_without_a_card_is_removed_while_nothing_else_changes(
    observed: Board[Observed], inventory: Board[Inventory], mock_clock: MockClock
) -> None:
    await look(observed, Observed(snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1, 2))))
    after = Observed(snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1)))
    await look_each_second(observed, mock_clock, after, CALM)
    assert inventory.latest is not None
    assert [each.resource for each in inventory.latest.lists] == [GPU]


@pytest.fixture
def judgements(monkeypatch: pytest.MonkeyPatch) -> list[Observed]:
    """What has been judged."""
    judged = []
    judge = HealthKeeper.judge

    def noting(keeper: HealthKeeper, found: Inventory, seen: Observed, now: float) -> Inventory:
        judged.append(seen)
        return judge(keeper, found, seen, now)

    monkeypatch.setattr(HealthKeeper, "judge", noting)
    return judged


@pytest.mark.parametrize("calming", [0, int(CALM)], ids=["settled", "the library may know more"])
async def test_a_calm_node_is_judged_seldom_and_a_change_at_once(
    observed: Board[Observed],
    inventory: Board[Inventory],
    mock_clock: MockClock,
    judgements: list[Observed],
    calming: int,
) -> None:
    library = LibraryRound(0.0, LibraryFacts("libbiren-ml.so.1")) if calming else None
    one = attrs.evolve(ONE, library=library)
    await look_each_second(observed, mock_clock, one, calming + 1)
    assert len(judgements) == calming + 1
    await look_each_second(observed, mock_clock, one, 3 * SELDOM)
    assert len(judgements) == calming + 1 + 3
    await look(observed, with_cards(one, node=NodeState.MISSING))
    assert not healthy(inventory)


@pytest.mark.parametrize(
    "fault",
    [{"node": NodeState.MISSING}, {"numa_misread": "numa_node reads '?'"}],
    ids=["Unhealthy", "warned about"],
)
async def test_a_card_with_a_fault_is_judged_at_each_look(
    observed: Board[Observed],
    inventory: Board[Inventory],
    mock_clock: MockClock,
    judgements: list[Observed],
    fault: dict[str, Any],
) -> None:
    await look_each_second(observed, mock_clock, with_cards(ONE, **fault), 2 * CALM)
    assert len(judgements) == 2 * CALM


def with_cards(seen: Observed, **changes: Any) -> Observed:
    """The same host with each card changed."""
    assert seen.snapshot is not None
    cards = tuple(attrs.evolve(card, **changes) for card in seen.snapshot.cards)
    return attrs.evolve(seen, snapshot=attrs.evolve(seen.snapshot, cards=cards))


def healthy(inventory: Board[Inventory]) -> list[str]:
    assert inventory.latest is not None
    return [
        device.id for each in inventory.latest.lists for device in each.devices if device.healthy
    ]


async def test_a_restarted_survey_logs_only_what_has_changed(
    observed: Board[Observed], mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    board = Board[Inventory]()
    first, second = (*gpu_cards(0, 0), *gpu_cards(1, 1))
    pulled = Observed(snapshot(first, attrs.evolve(second, node=NodeState.MISSING)))
    for seen in (TWO, TWO, pulled):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(survey_node, observed, board, HealthPolicy())
            await look(observed, seen)
            nursery.cancel_scope.cancel()
    assert caplog.text.count("found card_0, card_1") == 1
    assert caplog.text.count("found") == 1
    assert caplog.text.count("card_1 is Unhealthy") == 1


async def test_the_log_names_once_what_the_daemon_waits_for(
    observed: Board[Observed],
    inventory: Board[Inventory],
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(10):
        await jump(mock_clock, 1)
        await look(observed, Observed(Snapshot(driver_loaded=False)))
    said = [record for record in caplog.records if "waiting for the driver" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]


@pytest.mark.parametrize("source", ["sysfs", "library"])
async def test_a_driver_that_is_too_old_is_logged_once(
    observed: Board[Observed],
    inventory: Board[Inventory],
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    source: str,
) -> None:
    old = ONE
    if source == "sysfs":
        assert ONE.snapshot is not None
        old = attrs.evolve(ONE, snapshot=attrs.evolve(ONE.snapshot, driver_version="1.2.1"))
    else:
        facts = LibraryFacts("libbiren-ml.so.1", driver_version="1.2.1")
        old = attrs.evolve(ONE, library=LibraryRound(0.0, facts))
    for seen in (ONE, old, old, ONE, old):
        await look(observed, seen)
    [said] = [each.getMessage() for each in caplog.records if "driver" in each.getMessage()]
    assert said == "driver 1.2.1 is too old: containers may fail on it; install 1.2.2 or newer"


async def test_a_sufficient_or_unknown_driver_causes_no_remark(
    observed: Board[Observed],
    inventory: Board[Inventory],
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert ONE.snapshot is not None
    for version in ("1.2.2", "1.12.0", "of no kind", None):
        snapshot_ = attrs.evolve(ONE.snapshot, driver_version=version)
        await look(observed, attrs.evolve(ONE, snapshot=snapshot_))
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
