"""A look that hangs costs the card it hangs at, and nobody else."""

import threading
from collections.abc import Collection, Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from biren_plugin.core.model import Card, Snapshot
from biren_plugin.errors import HostUnreadable
from biren_plugin.host.lookout import READ_DEADLINE, Lookout
from biren_plugin.host.reader import HostReader
from tests.cards import gpu_cards, snapshot

THREE = snapshot(*gpu_cards(0, 0), *gpu_cards(1, 1), *gpu_cards(2, 2))


class Host:
    """Three cards, of which some hang whoever looks at them."""

    def __init__(self) -> None:
        self.hangs_at: set[str] = set()
        self.let_go = threading.Event()
        self.hanging = trio.Event()
        """Set when a look has begun to hang."""
        self.readers: list[Reader] = []

    def new_reader(self) -> HostReader:
        self.readers.append(Reader(self))
        return self.readers[-1]


class Reader(HostReader):
    """Reads a `Host`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.reading = None

    def unread_card(self, name: str) -> Card:
        return Card(name, int(name.removeprefix("card_")))

    def read(self, *, anew: bool = False, skip: Collection[str] = ()) -> Snapshot:
        seen = []
        for card in THREE.cards:
            if card.name in skip:
                continue
            self.reading = card.name
            if card.name in self.host.hangs_at:
                trio.from_thread.run_sync(self.host.hanging.set)
                self.host.let_go.wait()
            seen.append(card)
        self.reading = None
        return snapshot(*seen)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.let_go.set()  # or threads would outlive the test


async def look_past_hangs(lookout: Lookout, host: Host, clock: MockClock, hangs: int) -> Snapshot:
    """A look, with time moved on past each of its hangs.

    (A clock that jumps by itself does not see that a thread is at work.)
    """
    seen: list[Snapshot] = []

    async def look() -> None:
        seen.append(await lookout.look())

    async with trio.open_nursery() as nursery:
        host.hanging = trio.Event()
        nursery.start_soon(look)
        for _ in range(hangs):
            await host.hanging.wait()
            host.hanging = trio.Event()
            clock.jump(READ_DEADLINE)
    return seen[0]


def hung(seen: Snapshot) -> dict[str, bool]:
    return {card.name: card.hung for card in seen.cards}


async def test_cards_are_read_beside_one_that_hangs(host: Host, mock_clock: MockClock) -> None:
    lookout = Lookout(host.new_reader)
    assert hung(await lookout.look()) == {"card_0": False, "card_1": False, "card_2": False}
    host.hangs_at = {"card_1"}
    seen = await look_past_hangs(lookout, host, mock_clock, 1)
    assert hung(seen) == {"card_0": False, "card_1": True, "card_2": False}
    again = await lookout.look()
    assert hung(again) == hung(seen)
    assert len(host.readers) == 2, "its thread is not replaced"


async def test_cards_that_hang_from_the_start_are_shown_and_the_others_read(
    host: Host, mock_clock: MockClock
) -> None:
    lookout = Lookout(host.new_reader)
    host.hangs_at = {"card_0", "card_2"}
    seen = await look_past_hangs(lookout, host, mock_clock, 2)
    assert hung(seen) == {"card_0": True, "card_1": False, "card_2": True}
    assert seen.cards[0].physical_id is None, "nothing of it could be read"


async def test_card_is_read_again_when_its_thread_comes_back(
    host: Host, mock_clock: MockClock
) -> None:
    lookout = Lookout(host.new_reader)
    await lookout.look()
    host.hangs_at = {"card_1"}
    await look_past_hangs(lookout, host, mock_clock, 1)
    host.hangs_at = set()
    host.let_go.set()
    # The thread comes back in a moment of its own; each look is a real one in a thread.
    while hung(await lookout.look())["card_1"]:
        pass


async def test_hang_outside_of_the_cards_is_an_error_and_takes_one_thread_only(
    host: Host, mock_clock: MockClock
) -> None:
    class Elsewhere(Reader):
        def read(self, *, anew: bool = False, skip: Collection[str] = ()) -> Snapshot:
            trio.from_thread.run_sync(host.hanging.set)
            host.let_go.wait()
            return THREE

    lookout = Lookout(lambda: Elsewhere(host))

    async def look_in_vain() -> None:
        with pytest.raises(HostUnreadable, match="takes more than 5 s"):
            await lookout.look()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_in_vain)
        await host.hanging.wait()
        mock_clock.jump(READ_DEADLINE)
    host.let_go.set()
    assert hung(await lookout.look()) == {"card_0": False, "card_1": False, "card_2": False}


async def test_look_that_waits_for_a_thread_is_not_taken_for_the_one_that_hangs(
    host: Host, mock_clock: MockClock
) -> None:
    moved_on = threading.Event()

    class TwiceSlow(Reader):
        """Hangs outside of the cards, and then at one."""

        def read(self, *, anew: bool = False, skip: Collection[str] = ()) -> Snapshot:
            if not moved_on.is_set():
                trio.from_thread.run_sync(host.hanging.set)
                moved_on.wait()
                self.reading = "card_0"
                trio.from_thread.run_sync(host.hanging.set)
                host.let_go.wait()
            self.reading = None
            return snapshot(*(card for card in THREE.cards if card.name not in skip))

    lookout = Lookout(lambda: TwiceSlow(host))
    seen: list[Snapshot] = []

    async def look_twice() -> None:
        with pytest.raises(HostUnreadable):
            await lookout.look()
        seen.append(await lookout.look())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_twice)
        await host.hanging.wait()
        host.hanging = trio.Event()
        mock_clock.jump(READ_DEADLINE)
        await wait_all_tasks_blocked()
        moved_on.set()
        await host.hanging.wait()
        mock_clock.jump(READ_DEADLINE)
    assert hung(seen[0])["card_0"]
    host.let_go.set()
    while hung(await lookout.look())["card_0"]:
        pass  # the thread comes back in a moment of its own
