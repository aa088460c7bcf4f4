"""A board holds the latest value for each subscriber.

1. A newer value replaces one that was not taken yet, so there is no backlog.
2. A new subscriber gets the latest value first.
3. Posting never waits: a slow or dead subscriber delays no other task.
4. The same object posted again is no news: it wakes only a subscriber whose `repeats` returns True.

Each subscriber has a trio channel of its own, of size 1: a message on a channel that several share
would reach only one of them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

T = TypeVar("T")


def _never() -> bool:
    return False


class Board(Generic[T]):
    """One task posts values; other tasks take the latest."""

    def __init__(self) -> None:
        self._latest: list[T] = []
        self._subscribers: list[
            tuple[trio.MemorySendChannel[T], trio.MemoryReceiveChannel[T], Callable[[], bool]]
        ] = []

    @property
    def latest(self) -> T | None:
        """Return the last posted value; None before the first."""
        return self._latest[0] if self._latest else None

    def post(self, value: T) -> None:
        """Post `value` as the latest."""
        is_news = not self._latest or value is not self._latest[0]
        self._latest = [value]
        for send, receive, repeats in self._subscribers:
            if not (is_news or repeats()):
                continue
            with suppress(trio.WouldBlock):  # the subscriber has taken the last value
                receive.receive_nowait()
            send.send_nowait(value)

    def wants_repeats(self) -> bool:
        """Return whether a subscriber would take the same object again now."""
        return any(repeats() for _, _, repeats in self._subscribers)

    @contextmanager
    def subscribe(
        self, *, repeats: Callable[[], bool] = _never
    ) -> Iterator[trio.MemoryReceiveChannel[T]]:
        """Give a channel that holds the latest value, if there is one; closed at the end of the block.

        `repeats`: whether the subscriber takes the same object again, asked each time that one is posted.
        """
        send, receive = trio.open_memory_channel[T](1)
        with receive, self._subscribed(send, receive, repeats=repeats):
            yield receive

    @contextmanager
    def _subscribed(
        self,
        send: trio.MemorySendChannel[T],
        receive: trio.MemoryReceiveChannel[T],
        *,
        repeats: Callable[[], bool] = _never,
    ) -> Iterator[None]:
        rest = receive.clone()  # to remove a value that was not taken in time
        subscriber = (send, rest, repeats)
        if self._latest:
            with suppress(trio.WouldBlock):  # another board's value is in it already
                send.send_nowait(self._latest[0])
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)
            send.close()
            rest.close()

    async def wait_for(self, wanted: Callable[[T], bool]) -> T:
        """Return the first value, from the latest on, for which `wanted` is true."""
        with self.subscribe() as values:
            while not wanted(value := await values.receive()):
                pass
        return value


@contextmanager
def news_of(*boards: Board[Any]) -> Iterator[trio.MemoryReceiveChannel[object]]:
    """Give a channel that holds something whenever one of the boards has a new value; read it there."""
    send, receive = trio.open_memory_channel[Any](1)
    with receive, send, ExitStack() as subscriptions:
        for board in boards:
            subscriptions.enter_context(board._subscribed(send.clone(), receive))
        yield receive
