"""What all kinds of trouble have in common."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Trouble(Protocol):
    """One party's troubles; which of them come, and when, is the schedule's."""

    @property
    def kinds(self) -> Sequence[Callable[[], None]]:
        """One method for each; the name of the method is the name of the trouble."""

    def rest(self) -> None:
        """End the troubles that cannot be compared with the kubelet's view; a faulty card may stay faulty."""

    def calm(self) -> None:
        """Restore the state at the beginning."""
