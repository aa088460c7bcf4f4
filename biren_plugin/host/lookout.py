"""Looks at the host in a thread, with a deadline; a card that hangs is left alone, the others go on.

1. One thread looks at everything (a thread for each card and look costs more than the idle budget).
2. When a look passes its deadline at a card, that card keeps the thread, and is left out of further
   looks until the thread has come back. So each card has at most one thread that hangs.
3. When it hangs anywhere else, there is no other thread: the next look waits for this one.
"""

from collections.abc import Callable, Mapping
from typing import Final

import attrs
import trio

from biren_plugin.core.model import Card, Snapshot
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.reader import HostReader

READ_DEADLINE: Final = 5.0
"""Seconds for one look at the whole host."""
NEXT_DEADLINE: Final = 1.0
"""Seconds for the same look once a card of it was left: when one hangs, others may hang with it."""


class Lookout:
    """Looks with readers that `new_reader` makes; a reader that hangs is never used again."""

    def __init__(self, new_reader: Callable[[], HostReader]) -> None:
        self._new_reader = new_reader
        self._start_over()
        self._last: dict[str, Card] = {}
        self._hung: dict[str, Card] = {}
        """As last seen; a thread that comes back takes its card out."""

    def _start_over(self) -> None:
        self._reader = self._new_reader()
        self._one_thread = trio.CapacityLimiter(1)
        self._running: _Look | None = None  # whose thread it is

    async def look(self, *, anew: bool = False) -> Snapshot:
        """One look; cards that hang are as they were last seen. Raises `HostUnreadable`."""
        deadline = READ_DEADLINE
        while True:
            # One whose thread comes back meanwhile is read from the next look on.
            left_out = dict(self._hung)
            look = _Look(self._reader, self._hung, frozenset(left_out), anew)
            with trio.move_on_after(deadline):
                snapshot = await trio.to_thread.run_sync(
                    self._run, look, abandon_on_cancel=True, limiter=self._one_thread
                )
                return self._complete(snapshot, left_out)
            if self._running is None or (name := self._reader.reading) is None:
                raise HostUnreadable(
                    f"reading /sys and /dev takes more than {READ_DEADLINE:g} s, as when a driver "
                    "hangs; see `dmesg` on the node"
                )
            self._running.leave_at(name, self._last.get(name) or self._reader.unread_card(name))
            self._start_over()
            deadline = NEXT_DEADLINE

    def _run(self, look: "_Look") -> Snapshot:
        self._running = look  # in the thread: a look that waits for it has not begun
        return look.run()

    def _complete(self, snapshot: Snapshot, left_out: Mapping[str, Card]) -> Snapshot:
        cards = {card.name: card for card in snapshot.cards}
        for name, card in left_out.items():
            cards[name] = attrs.evolve(card, hung=True)
        self._last = cards
        return attrs.evolve(
            snapshot, cards=tuple(sorted(cards.values(), key=lambda card: card.number))
        )


class _Look:
    """One call of a reader, which may outlive whoever waits for it."""

    def __init__(
        self, reader: HostReader, hung: dict[str, Card], skip: frozenset[str], anew: bool
    ) -> None:
        self._reader = reader
        self._hung = hung
        self._skip = skip
        self._anew = anew
        self._left_at: str | None = None
        self.is_over = False
        """Whether the thread has come back."""

    def run(self) -> Snapshot:
        """Runs in the thread."""
        try:
            return self._reader.read(anew=self._anew, skip=self._skip)
        finally:
            self.is_over = True
            self._take_out()

    def leave_at(self, name: str, card: Card) -> None:
        """Nobody waits any more: `name` counts as hung until `run` is over."""
        self._hung[name] = card
        self._left_at = name
        if self.is_over:  # just now
            self._take_out()

    def _take_out(self) -> None:
        if self._left_at is not None:
            self._hung.pop(self._left_at, None)
