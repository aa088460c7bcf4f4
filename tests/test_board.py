"""A board gives everyone the latest value, and nobody can hold up who posts."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from biren_plugin.board import Board, news_of


@pytest.fixture
def board() -> Board[int]:
    return Board()


def test_a_new_board_has_no_latest_value(board: Board[int]) -> None:
    assert board.latest is None
    board.post(1)
    board.post(2)
    assert board.latest == 2


async def test_a_late_subscriber_gets_the_latest_value_first(board: Board[int]) -> None:
    board.post(1)
    board.post(2)
    with board.subscribe() as values:
        assert values.receive_nowait() == 2
        with pytest.raises(trio.WouldBlock):
            values.receive_nowait()


async def test_an_early_subscriber_waits_for_the_first_value(board: Board[int]) -> None:
    got = []

    async def wait() -> None:
        with board.subscribe() as values:
            got.append(await values.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        board.post(1)
        board.post(2)
    assert got == [1], "who was waiting already has the first"


async def test_each_subscriber_gets_each_value(board: Board[int]) -> None:
    with board.subscribe() as one, board.subscribe() as other:
        for value in (1, 2):
            board.post(value)
            assert [await one.receive(), await other.receive()] == [value, value]


async def test_the_same_object_again_wakes_only_subscribers_that_ask_for_repeats() -> None:
    board = Board[list[int]]()
    value = [1]
    board.post(value)
    with board.subscribe() as plain, board.subscribe(repeats=lambda: True) as repeating:
        for channel in (plain, repeating):
            channel.receive_nowait()
        board.post(value)
        assert repeating.receive_nowait() is value
        with pytest.raises(trio.WouldBlock):
            plain.receive_nowait()
        board.post([1])
        assert plain.receive_nowait() == [1], "an equal object is another one"


async def test_a_slow_subscriber_skips_what_it_did_not_take(board: Board[int]) -> None:
    with board.subscribe() as slow, board.subscribe() as quick:
        for value in range(1000):
            board.post(value)
            assert quick.receive_nowait() == value
        assert slow.receive_nowait() == 999
        with pytest.raises(trio.WouldBlock):
            slow.receive_nowait()


async def test_a_subscriber_that_closed_its_channel_delays_no_other(board: Board[int]) -> None:
    with board.subscribe() as dead, board.subscribe() as alive:
        dead.close()
        board.post(1)
        board.post(2)
        assert alive.receive_nowait() == 2


async def test_the_channel_ends_with_the_block(board: Board[int]) -> None:
    with board.subscribe() as values:
        pass
    with pytest.raises(trio.ClosedResourceError):
        values.receive_nowait()
    board.post(1)
    assert board.latest == 1


async def test_a_cancelled_subscriber_is_forgotten(board: Board[int]) -> None:
    async def wait() -> None:
        with board.subscribe() as values:
            async for _ in values:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    board.post(1)
    with board.subscribe() as values:
        assert values.receive_nowait() == 1


async def test_waiting_for_a_value_begins_with_the_latest(board: Board[int]) -> None:
    board.post(7)
    assert await board.wait_for(lambda value: value > 5) == 7


async def test_waiting_for_a_value_lets_others_pass(board: Board[int]) -> None:
    got = []

    async def wait() -> None:
        got.append(await board.wait_for(lambda value: value > 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for value in (1, 9, 2):
            await wait_all_tasks_blocked()
            board.post(value)
    assert got == [9]


STEPS = st.lists(st.one_of(st.integers(), st.sampled_from(["take", "come", "go"])))


@given(STEPS)
def test_the_last_reader_gets_the_last_posted_value(steps: list[int | str]) -> None:
    board: Board[int] = Board()
    with board.subscribe() as watching:
        seen: int | None = None
        for step in steps:
            match step:
                case int():
                    board.post(step)
                case "take":
                    seen = take(watching, seen)
                case "come":
                    with board.subscribe() as visitor:
                        assert take(visitor, None) == board.latest
                case "go":
                    with board.subscribe():
                        pass
        assert take(watching, seen) == board.latest


def take(values: trio.MemoryReceiveChannel[int], otherwise: int | None) -> int | None:
    try:
        return values.receive_nowait()
    except trio.WouldBlock:
        return otherwise


async def test_a_new_value_on_either_board_wakes_a_follower_of_both() -> None:
    one, other = Board[int](), Board[str]()
    one.post(1)
    other.post("a")
    with news_of(one, other) as news:
        await news.receive()
        for number in range(2, 4):  # what was not taken is replaced, whichever board it was of
            with pytest.raises(trio.WouldBlock):
                news.receive_nowait()
            one.post(number)
            other.post(f"{number}")
            await news.receive()
        one.post(4)
        await news.receive()
        other.post("c")
        await news.receive()
        assert (one.latest, other.latest) == (4, "c")
    one.post(5)
    other.post("d")
    with pytest.raises(trio.ClosedResourceError):
        news.receive_nowait()
