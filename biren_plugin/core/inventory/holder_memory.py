"""Which container holds which card, also while a kubelet that has restarted does not report it.

Until it is settled who holds a card, there is a `doubt`, and no other container may get the card. Three
modules have one part each, and this one calls them in their order:

1. `kubelet_start`: how far the list of a kubelet that has restarted is, and whether it kept its record.
2. `reported_holders`: what pods hold by the lists.
3. `unreported_allocations`: cards that were allocated, and that no list has shown yet.

Times are seconds of any clock that only goes forward.
"""

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from biren_plugin.core.inventory.kubelet_start import KubeletStart
from biren_plugin.core.inventory.reported_holders import ReportedHolders
from biren_plugin.core.inventory.unreported_allocations import UnreportedAllocations
from biren_plugin.core.observed import NO_HOLDERS, Holders, KubeletView

FORGET_AFTER: Final = 60.0
"""Seconds without an answer, after which nothing is known: a pod that has gone must not keep a card forever."""


class _Registered(NamedTuple):
    """With which kubelet a resource is registered. It is not comparable to the one that answers."""

    kubelet: object = None
    at: float = -math.inf


class HolderMemory:
    """Takes registrations, allocations and the kubelet's answers in the order in which they happen."""

    def __init__(self) -> None:
        self._reported = ReportedHolders()
        self._allocations = UnreportedAllocations()
        self._registered: dict[str, _Registered] = {}
        self._kubelet: object = None
        self._view = KubeletView(-math.inf)
        """Its last answer."""
        self._start: KubeletStart | None = None
        """None: it has listed all of its pods long ago."""

    @property
    def is_settling(self) -> bool:
        """Return whether the next answer may settle who holds a card."""
        if (start := self._start) is None:
            return False
        unconfirmed = self._reported.is_unsettled and not start.kept_record
        return unconfirmed or self._allocations.is_unsettled

    @property
    def is_listing(self) -> bool:
        """Return whether it is settling, and the kubelet adds pods to its list at this moment."""
        start = self._start
        return self.is_settling and start is not None and not start.lists_all(self._view.at)

    def registering(self, resource: str, kubelet: object, now: float) -> None:
        """Note that `resource` is about to be registered with this `kubelet`, which may have restarted."""
        if self._registered.get(resource, _Registered()).kubelet != kubelet:
            self._allocations.doubt_recent(resource, is_evidence=self._believes(resource))
            self._registered[resource] = _Registered(kubelet, now)

    def allocated(self, resource: str, ids: Collection[str], now: float) -> None:
        """Note that a container gets these cards."""
        self._allocations.allocated([(resource, id_) for id_ in ids], now)

    def doubt(self, resource: str, id_: str, now: float) -> str:
        """Return why a container may hold the card unknown to the resource's kubelet: a clause; empty if none may."""
        key, registered = (resource, id_), self._registered.get(resource, _Registered())
        if now - max(self._view.at, registered.at) > FORGET_AFTER:
            return ""
        believed = self._believes(resource)
        if self._allocations.is_doubted(key, believed=believed):
            return f"{id_} was allocated right before the kubelet restarted, which does not report to which pod"
        if (holder := self._reported.holders.get(key)) is None:
            return ""
        if holder.forgotten:
            return f"pod {holder} still holds {id_}, and the kubelet has lost its record of that"
        if not believed and not (self._has_answered(resource) and self._reported.is_shown(key)):
            return f"pod {holder} held {id_} before the kubelet restarted, which does not list that pod yet"
        return ""

    def answered(self, view: KubeletView, kubelet: object) -> Holders:
        """Return the holders by an answer of `kubelet`: those that it shows, has forgotten, or may have."""
        if self._kubelet not in (None, kubelet):
            self._another_kubelet(view.at)
        self._kubelet, self._view = kubelet, view
        if (start := self._start) is not None:
            start.follow(view)
            former = self._allocations.of_former(view.holders or NO_HOLDERS)
            if self._reported.confirmed_by(former) or self._allocations.confirmed_by(former):
                start.kept_record = True
        holders = self._reported.update(view, start)
        self._allocations.update(view, start, self._has_answered)
        if start is not None and start.is_over(view.at):
            self._end_start()
        return {**self._allocations.suspected(), **holders}

    def _another_kubelet(self, now: float) -> None:
        for resource in self._registered:
            self._allocations.doubt_recent(resource, is_evidence=self._believes(resource))
        self._end_start()
        self._start = KubeletStart(now)
        self._reported.doubt_shown()

    def _end_start(self) -> None:
        """What the present kubelet has not shown by now, it will not."""
        if self._start is not None and self._start.lost_record:
            self._reported.lose_unconfirmed()
            self._allocations.lose_doubted()
        self._start = None

    def _has_answered(self, resource: str) -> bool:
        """Return whether the kubelet that the resource is registered with has answered."""
        return self._view.at >= self._registered.get(resource, _Registered()).at

    def _believes(self, resource: str) -> bool:
        """Return whether that kubelet is known to have kept the record of all that is allocated."""
        is_settled = self._start is None or self._start.kept_record
        return is_settled and self._has_answered(resource)
