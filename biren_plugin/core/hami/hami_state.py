"""The node's state under HAMi's scheduler, as `status`, the metrics and `/readyz` show it."""

from collections import Counter, deque
from typing import Literal

import attrs

from biren_plugin.records import mutable

HamiOutcome = Literal["matched", "unmatched", "refused", "unasked"]
"""Of an Allocate: as HAMi promised; no pod was promised these cards; another pod was promised these
cards; the API server did not answer."""


@mutable
class HamiState:
    """What the node has come to under HAMi's scheduler."""

    registered: bool = False
    """Whether the API server took the last report of the node's cards."""
    trouble: str = ""
    """Why it did not; empty if it did."""
    reported: float | None = None
    """When the last report was taken, in seconds since 1970."""
    lock: str = ""
    """The pod for which HAMi has locked the node, as `namespace/pod`; empty for none."""
    containers: Counter[HamiOutcome] = attrs.Factory(Counter)
    """Containers that got whole cards, or were refused."""
    mismatches: deque[str] = attrs.Factory(lambda: deque(maxlen=5))
    """The last sentences about containers that could not be matched with HAMi's record."""

    def problems(self) -> list[str]:
        """Return a sentence if HAMi cannot know the node's cards."""
        return [f"HAMi does not know the node's cards: {self.trouble}"] if self.trouble else []

    def note(self, outcome: HamiOutcome, text: str) -> None:
        """A container could not be matched, and why."""
        self.containers[outcome] += 1
        self.mismatches.append(text)
