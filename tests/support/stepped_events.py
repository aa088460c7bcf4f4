"""A folder_events that a test rings: whoever waits at it looks once for each ring, and at no other time."""

import trio

from biren_plugin.host.folder_events import FolderEvents


class SteppedEvents(FolderEvents):
    """Stands where a task waits for changes; `ring` lets it look once and returns when it has."""

    def __init__(self) -> None:
        self.armed = 0
        """How often it was armed."""
        self.asleep = trio.Event()
        """Set while somebody waits at the bell."""
        self.changed = True
        """Whether a ring is a change in the directories, rather than the end of the longest wait."""
        self._rung = trio.Event()

    def arm(self, _now: float) -> bool:
        self.armed += 1
        return True

    async def wait(self, longest: float) -> bool:
        self._rung = trio.Event()
        self.asleep.set()
        await self._rung.wait()
        return self.changed

    def press(self) -> None:
        """Rings without waiting for the look."""
        self.asleep = trio.Event()
        self._rung.set()

    async def ring(self) -> None:
        """Rings, and returns when who waited has looked and waits again."""
        await self.asleep.wait()
        self.press()
        await self.asleep.wait()
