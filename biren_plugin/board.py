"""The latest value, for everyone who wants it.

1. A value posted later replaces one that was not taken yet: nobody works off a backlog.
2. A subscriber that comes late gets the latest value first.
3. Posting never waits: a slow or dead subscriber holds up nobody.

Each subscriber has a trio channel of its own, of size 1: a message on a channel that several share
would reach one of them only.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

T = TypeVar("T")


class Board(Generic[T]):
    """Where one task posts, and others take the latest."""

    def __init__(self) -> None:
        self._latest: list[T] = []
        self._subscribers: list[tuple[trio.MemorySendChannel[T], trio.MemoryReceiveChannel[T]]] = []

    @property
    def latest(self) -> T | None:
        """The last value that was posted."""
        return self._latest[0] if self._latest else None

    def post(self, value: T) -> None:
        """Makes `value` the latest."""
        self._latest = [value]
        for send, receive in self._subscribers:
            with suppress(trio.WouldBlock):  # the subscriber has taken the last one
                receive.receive_nowait()
            send.send_nowait(value)

    @contextmanager
    def subscribe(self) -> Iterator[trio.MemoryReceiveChannel[T]]:
        """A channel with the latest value in it, if there is one; closed at the end of the block."""
        send, receive = trio.open_memory_channel[T](1)
        with receive, self._subscribed(send, receive):
            yield receive

    @contextmanager
    def _subscribed(
        self, send: trio.MemorySendChannel[T], receive: trio.MemoryReceiveChannel[T]
    ) -> Iterator[None]:
        subscriber = (send, receive.clone())  # the clone takes back what was not taken in time
        if self._latest:
            with suppress(trio.WouldBlock):  # another board's news is in it already
                send.send_nowait(self._latest[0])
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)
            for end in subscriber:
                end.close()

    async def wait_for(self, wanted: Callable[[T], bool]) -> T:
        """The first value, from the latest on, that is `wanted`."""
        with self.subscribe() as values:
            while not wanted(value := await values.receive()):
                pass
        return value


@contextmanager
def news_of(*boards: Board[Any]) -> Iterator[trio.MemoryReceiveChannel[object]]:
    """A channel with something in it whenever one of the boards has news; what, say the boards."""
    send, receive = trio.open_memory_channel[Any](1)
    with receive, send, ExitStack() as subscriptions:
        for board in boards:
            subscriptions.enter_context(board._subscribed(send.clone(), receive))
        yield receive
