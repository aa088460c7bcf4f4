"""With HAMi as scheduler each container gets the cards that HAMi's record names, and nothing stays locked."""

import pytest

from biren_plugin.errors import NotReady
from tests.support.hami_books import Wish
from tests.support.hami_node import HamiNode, inventory_of, until
from tests.support.hami_scheduler import ALLOCATED, PHASE, TO_ALLOCATE


@pytest.mark.parametrize(
    ("wish", "cards"),
    [
        (Wish((1,)), [{"card_7"}]),
        (Wish((2,)), [{"card_7", "card_6"}]),
        (Wish((4,)), [{"card_7", "card_6", "card_5", "card_4"}]),
        (Wish((1, 0, 2)), [{"card_7"}, set(), {"card_6", "card_5"}]),
        (Wish((2,), init=(1,)), [{"card_7"}, {"card_7", "card_6"}]),
        (Wish((1,), init=(0,)), [set(), {"card_7"}]),
    ],
)
async def test_a_pod_gets_what_hami_chose(
    node: HamiNode, wish: Wish, cards: list[set[str]]
) -> None:
    async with node.registered():
        await node.run_pod("p1", wish)
        assert node.containers["p1"] == cards
        assert node.agrees()
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") == "success"
        assert node.scheduler.annotation(TO_ALLOCATE, "p1") == ";" * len(cards)
        assert node.scheduler.annotation(ALLOCATED, "p1") != ";" * len(cards), "HAMi's own record"


async def test_eight_pods_one_after_another_get_a_card_each(node: HamiNode) -> None:
    async with node.registered():
        for number in range(8):
            await node.run_pod(f"p{number}", Wish((1,)))
            await until(lambda: node.scheduler.lock is None)
        assert node.agrees()
        assert node.scheduler.run_pod("p8", Wish((1,))) == "no available node"
        assert node.hami.containers == {"matched": 8}


async def test_two_pods_at_once_wait_for_each_other_and_both_run(node: HamiNode) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        assert node.scheduler.run_pod("p2", Wish((1,))) == "node lock contention"
        await node.admit("p1", Wish((1,)))
        await until(lambda: node.scheduler.schedule("p2") == "bound")
        await node.admit("p2", Wish((1,)))
        assert node.agrees()
        await until(lambda: node.scheduler.lock is None)


async def test_a_pod_whose_init_containers_alone_have_cards_has_no_lock_and_gets_them(
    node: HamiNode,
) -> None:
    async with node.registered():
        wish = Wish((0,), init=(1,))
        assert node.scheduler.run_pod("p1", wish) == "bound"
        assert node.scheduler.lock is None
        await node.admit("p1", wish)
        assert node.agrees()
        assert node.hami.containers == {"matched": 1}


async def test_reused_cards_of_an_init_container_that_differ_are_refused_and_the_lock_goes(
    node: HamiNode,
) -> None:
    """The kubelet keeps any of an init container's cards: here another one than HAMi wrote down."""
    async with node.registered():
        wish = Wish((1,), init=(8,))
        assert node.scheduler.run_pod("p1", wish) == "bound"
        with pytest.raises(
            NotReady, match="HAMi promised card_7 to default/p1, and the kubelet asks"
        ):
            await node.admit("p1", wish)
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") == "failed"
        assert node.hami.containers["refused"] == 1
        assert "card_7" in node.hami.mismatches[-1]
        await node.run_pod("p2", Wish((1,)))
        assert node.containers["p2"] == [{"card_7"}], "HAMi counts a failed pod's cards as free"


async def test_a_card_that_turned_faulty_after_the_choice_is_refused_and_the_lock_goes(
    node: HamiNode,
) -> None:
    async with node.registered():
        assert node.scheduler.run_pod("p1", Wish((1,))) == "bound"
        offered = node.mode.cards.offered
        sick = inventory_of(range(8), 7).lists[0]
        offered.post(sick)  # the kubelet has not read the list yet
        with pytest.raises(NotReady, match="card_7 is Unhealthy: 3 ECC errors"):
            await node.admit("p1", Wish((1,)))
        await until(lambda: node.scheduler.lock is None)
        assert node.scheduler.annotation(PHASE, "p1") == "failed"


async def test_a_pod_that_hami_does_not_know_gets_what_is_promised_to_nobody(
    node: HamiNode,
) -> None:
    """It has the label `hami.io/webhook: ignore`."""
    async with node.registered():
        assert await node._allocate({"card_0"}) == {"card_0"}
        assert node.hami.containers == {"unmatched": 1}
        assert node.scheduler.run_pod("p1", Wish((2,))) == "bound"
        with pytest.raises(NotReady, match="HAMi promised card_7 to default/p1"):
            await node._allocate({"card_7"})
        await node.admit("p1", Wish((2,)))
        assert node.agrees()
