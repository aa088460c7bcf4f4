"""A kubelet that lost its record is asked before it gives a held card to another container."""

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import edits_for
from biren_plugin.core.model import DeviceList, Inventory
from biren_plugin.core.observed import Holder, Holders, KubeletView
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.doubtful_cards import ASK_DEADLINE, DoubtfulCards
from biren_plugin.device_plugin.node import CardScheduler, Streams
from biren_plugin.device_plugin.plugin_server import DevicePlugin, watch_devices
from biren_plugin.errors import NotReady
from tests.support.cards import GPU, devices, listed

TRAIN = Holder("default", "train", "main")
HELD: Holders = {(GPU, "card_0"): TRAIN}
PODS = frozenset({("default", "train")})


class Books:
    """A scheduler that has promised `card_0` to the container that asks."""

    resource = GPU
    offered = Board[DeviceList]()

    async def prefer(self, request: PreferenceRequest) -> list[str] | None:
        return None

    async def admit(self, ids: Sequence[str]) -> bool:
        return list(ids) == ["card_0"]

    async def refuse(self, ids: Sequence[str]) -> None:
        pass


class Stage:
    """A plugin with three cards, of which a pod holds `card_0`; kubelet `a` has reported that."""

    def __init__(self, scheduler: CardScheduler | None = None) -> None:
        self.state = DaemonState()
        offered = Board[DeviceList]()
        offered.post(listed(GPU, *devices(GPU, 0, 1, 2)))
        self.plugin = DevicePlugin(
            offered,
            Board[Inventory](),
            lambda: watch_devices(offered, Board[Streams]()),
            "packed",
            edits_for,
            DoubtfulCards(GPU, self.state),
            scheduler,
        )
        self.questions = 0
        self.register("a")
        self.answer("a", HELD, PODS)

    def register(self, kubelet: str) -> None:
        self.state.holding.registering(GPU, kubelet, trio.current_time())

    def answer(self, kubelet: str, held: Holders, pods: frozenset[tuple[str, str]]) -> None:
        view = KubeletView(trio.current_time(), held, None, pods)
        self.state.holding.answered(view, kubelet)
        self.state.kubelet_view.post(view)

    async def answer_each_question(
        self, kubelet: str, held: Holders, pods: frozenset[tuple[str, str]]
    ) -> None:
        with self.state.doubts.subscribe() as doubts:
            async for _doubt in doubts:
                self.questions += 1
                self.answer(kubelet, held, pods)


@pytest.fixture
async def stage(autojump_clock: MockClock) -> Stage:
    found = Stage()
    await trio.sleep(5)  # of the mock clock
    return found


async def asked(stage: Stage, kubelet: str, held: Holders, *ids: str) -> None:
    """Allocate these cards; each question meanwhile is answered with `held` and one running pod."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.answer_each_question, kubelet, held, PODS)
        try:
            await stage.plugin.allocate([ids])
        finally:
            nursery.cancel_scope.cancel()


def refusal(text: str) -> Callable[[BaseExceptionGroup[NotReady]], bool]:
    return lambda group: text in str(group.exceptions[0])


async def test_a_kubelet_without_a_restart_is_believed_unasked(
    stage: Stage, autojump_clock: MockClock
) -> None:
    await asked(stage, "a", HELD, "card_0")
    assert not stage.questions


async def test_a_card_that_nobody_held_is_allocated_unasked(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.register("b")
    await asked(stage, "b", {}, "card_1")
    assert not stage.questions


async def test_a_card_whose_pod_a_restarted_kubelet_lists_without_it_is_refused(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.register("b")
    with pytest.RaisesGroup(NotReady, check=refusal("pod default/train still holds card_0")):
        await asked(stage, "b", {}, "card_0")
    assert stage.questions == 1


async def test_a_card_that_a_kubelet_frees_which_kept_its_record_is_allocated(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.answer("a", {**HELD, (GPU, "card_1"): Holder("default", "other", "main")}, PODS)
    stage.register("b")
    await asked(stage, "b", HELD, "card_1")


async def test_a_kubelet_that_does_not_answer_gets_no_held_card(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.register("b")
    began = trio.current_time()
    with pytest.raises(NotReady, match="held card_0 before the kubelet restarted"):
        await stage.plugin.allocate([["card_0"]])
    assert trio.current_time() - began == pytest.approx(ASK_DEADLINE)


async def test_a_kubelet_that_fails_to_answer_once_has_time_for_the_next_answer(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.register("b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.plugin.allocate, [["card_0"]])
        await trio.sleep(ASK_DEADLINE / 3)
        stage.state.kubelet_view.post(KubeletView(trio.current_time()))
        await trio.sleep(ASK_DEADLINE / 3)
        stage.answer("b", HELD, PODS)


async def test_a_card_that_was_just_allocated_is_refused_after_the_kubelets_end(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.state.holding.allocated(GPU, ["card_1"], trio.current_time())
    stage.register("b")
    with pytest.raises(NotReady, match="card_1 was allocated right before the kubelet restarted"):
        await stage.plugin.allocate([["card_1"]])


async def test_a_choice_leaves_held_cards_out_while_enough_others_are_there(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.register("b")
    both = ("card_0", "card_1")
    one, two = PreferenceRequest(both, (), 1), PreferenceRequest(both, (), 2)
    assert await stage.plugin.prefer([one]) == [["card_1"]]
    assert await stage.plugin.prefer([two]) == [["card_0", "card_1"]]
    must = PreferenceRequest(both, ("card_0",), 1)
    assert await stage.plugin.prefer([must]) == [["card_0"]]


async def test_a_choice_that_must_include_a_held_card_leaves_others_out(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.state.holding.allocated(GPU, ["card_2"], trio.current_time())
    stage.register("b")
    must = PreferenceRequest(("card_0", "card_1", "card_2"), ("card_2",), 2)
    assert await stage.plugin.prefer([must]) == [["card_1", "card_2"]]


async def test_a_schedulers_promise_settles_the_doubt_about_a_card(
    autojump_clock: MockClock,
) -> None:
    stage = Stage(Books())
    await trio.sleep(5)  # of the mock clock
    for card in ("card_0", "card_1"):
        stage.state.holding.allocated(GPU, [card], trio.current_time())
    stage.register("b")
    await stage.plugin.allocate([["card_0"]])
    with pytest.raises(NotReady, match="card_1 was allocated right before the kubelet restarted"):
        await stage.plugin.allocate([["card_1"]])
