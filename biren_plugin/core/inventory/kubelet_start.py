"""The first time of a kubelet that has restarted: which pods it has listed, and whether it kept its record.

1. For up to a second after its start a kubelet lists no pod. Then it adds one after the other, the oldest
   first, and admits each before it adds the next: `BATCH` later it lists all the pods that run. So it may
   ask for a card before it lists the pod that holds the card.
2. A pod that it does not list `LISTING` after its first answer is gone.
3. A kubelet that lost its checkpoint lists the running pods without their devices, and allocates these again
   (*seen* on 1.36). One that kept it shows at least one device of its predecessors' record, and is then
   believed.

Times are seconds of any clock that only goes forward.
"""

from typing import Final

from biren_plugin.core.observed import KubeletView, Pods
from biren_plugin.records import mutable

LISTING: Final = 30.0
"""Seconds from a kubelet's first answer: a pod that is not listed then is gone."""
BATCH: Final = 1.0
"""Seconds from a kubelet's first answer with a pod to one with all the pods that run."""


@mutable
class KubeletStart:
    """What is known of a kubelet since its first answer; it is over after `LISTING`."""

    at: float
    """When it was asked first."""
    kept_record: bool = False
    """Whether it has shown a device of its predecessors' record."""
    _listing_since: float | None = None
    """When it first listed a pod."""
    _listed: Pods = frozenset()
    """The pods that it has listed so far."""

    def follow(self, view: KubeletView) -> None:
        """Take the next answer."""
        if self._listing_since is None and view.pods:
            self._listing_since = view.at
        self._listed |= view.pods

    @property
    def has_listed(self) -> bool:
        """Return whether it has listed a pod."""
        return self._listing_since is not None

    @property
    def lost_record(self) -> bool:
        """Return whether it has listed pods, and has shown nothing that it should know of."""
        return self.has_listed and not self.kept_record

    def lists_all(self, now: float) -> bool:
        """Return whether the list at `now` has every pod that runs."""
        return self._listing_since is not None and now - self._listing_since > BATCH

    def may_list(self, pod: tuple[str, str], now: float) -> bool:
        """Return whether a pod that is not listed at `now` may still come, rather than being gone."""
        return pod not in self._listed and not self.is_over(now)

    def is_over(self, now: float) -> bool:
        """Return whether a pod that is not listed at `now` is gone, whichever it is."""
        return now - self.at > LISTING
