"""A stand-in for `FolderEvents` that a test rings: the waiting task reads once for each ring, and at no other time."""

import trio

from biren_plugin.host.folder_events import FolderEvents


class SteppedEvents(FolderEvents):
    """Takes the place of `FolderEvents`; `ring` lets the task read once and returns when it has."""

    def __init__(self) -> None:
        self.armed = 0
        """How often it was armed."""
        self.asleep = trio.Event()
        """Set while a task waits."""
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
        """Ring without waiting for the read."""
        self.asleep = trio.Event()
        self._rung.set()

    async def ring(self) -> None:
        """Ring, and return when the task has read and waits again."""
        await self.asleep.wait()
        self.press()
        await self.asleep.wait()
