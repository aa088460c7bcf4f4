"""Allocated cards of which no list has shown the pod yet.

A card moves one way:

1. *Recent*: the kubelet has allocated it, and shows within `RECORDED` which pod got it. If it does not, no pod
   did, as when the pod was refused.
2. *Doubted*: before that, the kubelet restarted. Each pod that the next kubelet lists, and that was not listed
   before the allocation, may hold the card: a *suspect*. If that kubelet kept its record, no listed pod does,
   and once all pods that run have been listed, the card is free. If the same kubelet answers, the card is
   recent again.
3. *Lost*: the kubelet did not keep its record, so no later kubelet knows of the card either. Once all pods that
   run have been listed, the suspects are complete, and the card is free when the last of them is gone.

A card that a list shows is none of these any more.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from biren_plugin.core.inventory.kubelet_start import BATCH, KubeletStart
from biren_plugin.core.observed import NO_HOLDERS, DeviceKey, Holder, Holders, KubeletView, Pods
from biren_plugin.records import mutable

RECORDED: Final = 2.0
"""Seconds after an allocation in which the kubelet shows the container that got the card, if one did."""


class _Allocation(NamedTuple):
    at: float
    before: Pods
    """The pods that the kubelet had listed before, without a device: the card is not for them."""


@mutable
class _Doubted:
    """A card that a former kubelet allocated right before its end, if it has ended."""

    allocation: _Allocation
    is_evidence: bool
    """Whether a kubelet that shows it, and did not allocate it, kept its record."""
    suspects: Pods = frozenset()
    is_lost: bool = False
    is_complete: bool = False
    """Whether one of the suspects holds it, if any pod does."""

    def follow(self, view: KubeletView, start: KubeletStart | None) -> None:
        """Take the next answer; `start` is of the kubelet that answers, None if it is over."""
        believed = start is None or start.kept_record
        if believed and not self.is_lost:
            self.suspects = frozenset()
        elif not self.is_complete:
            self.suspects |= view.pods - self.allocation.before
        if start is None or start.lists_all(view.at):
            self.suspects &= view.pods
            self.is_complete = self.is_lost = True


class UnreportedAllocations:
    """Takes allocations, the kubelets' answers, and when another kubelet may have taken over."""

    def __init__(self) -> None:
        self._recent: dict[DeviceKey, _Allocation] = {}
        self._doubted: dict[DeviceKey, _Doubted] = {}
        self._pods: list[tuple[float, Pods]] = []
        """The pods of the present kubelet's answers, with their times; of those before `BATCH` ago only the last."""

    @property
    def is_unsettled(self) -> bool:
        """Return whether it is open which pods may hold a card."""
        return not all(each.is_complete for each in self._doubted.values())

    def is_doubted(self, key: DeviceKey, *, believed: bool) -> bool:
        """Return whether a pod may hold the card; `believed`: the present kubelet kept its record."""
        return key in self._doubted and (self._doubted[key].is_lost or not believed)

    def suspected(self) -> Holders:
        """Return the cards of which one of the suspects holds each, if any pod does: each with one of these.

        None before the suspects are complete. A kubelet admits a pod that has a card before it lists the pod,
        and refuses the pod if the card is Unhealthy at that moment.
        """
        return {
            key: Holder(*min(each.suspects), forgotten=True, perhaps=True)
            for key, each in self._doubted.items()
            if each.is_complete and each.suspects
        }

    def allocated(self, keys: Iterable[DeviceKey], now: float) -> None:
        """Note that a container gets these cards."""
        before = [pods for at, pods in self._pods if at <= now - BATCH] or [frozenset()]
        self._recent.update(dict.fromkeys(keys, _Allocation(now, before[-1])))

    def of_former(self, shown: Holders) -> Holders:
        """Return those of the devices that are shown which the present kubelet has not allocated itself."""
        doubted = self._doubted
        return {
            key: holder
            for key, holder in shown.items()
            if key not in self._recent and (key not in doubted or doubted[key].is_evidence)
        }

    def confirmed_by(self, shown: Holders) -> bool:
        """Return whether devices that a kubelet did not allocate itself prove that it kept its record."""
        return any(key in self._doubted and not self._doubted[key].is_lost for key in shown)

    def lose_doubted(self) -> None:
        """The present kubelet has not kept its record."""
        for each in self._doubted.values():
            each.is_lost = True

    def doubt_recent(self, resource: str, *, is_evidence: bool) -> None:
        """Another kubelet may have taken over; `is_evidence`: it kept its record if it shows one of these."""
        self._pods.clear()
        for key in [each for each in self._recent if each[0] == resource]:
            known = self._doubted.get(key)
            suspects = known.suspects if known is not None else frozenset()
            self._doubted[key] = _Doubted(self._recent.pop(key), is_evidence, suspects)

    def update(
        self,
        view: KubeletView,
        start: KubeletStart | None,
        is_registered: Callable[[str], bool],
    ) -> None:
        """Take the next answer; `start` is of the kubelet that answers, None if it is over.

        `is_registered` returns whether a resource is registered with that kubelet.
        """
        for key in view.holders or NO_HOLDERS:
            self._recent.pop(key, None)
            self._doubted.pop(key, None)
        if start is None:
            unfounded = [key for key in self._not_lost() if is_registered(key[0])]
            self._recent.update({key: self._doubted.pop(key).allocation for key in unfounded})
        self._recent = {
            key: each for key, each in self._recent.items() if view.at - each.at <= RECORDED
        }
        for key, each in [*self._doubted.items()]:
            if each.is_lost or start is not None:
                each.follow(view, start)
            if each.is_complete and not each.suspects:
                del self._doubted[key]
        if start is None or start.has_listed:
            # One that holds a device may have been replaced by a pod of its name when a card is allocated next.
            holding = {(each.namespace, each.pod) for each in (view.holders or NO_HOLDERS).values()}
            self._note_pods(view.pods - holding if holding else view.pods, view.at)
        while len(self._pods) > 1 and self._pods[1][0] <= view.at - BATCH:
            del self._pods[0]

    def _note_pods(self, pods: Pods, now: float) -> None:
        """Note what is listed without a device; of equal sets the latest is kept, which the view has anyway."""
        since = self._pods.pop()[0] if self._pods and self._pods[-1][1] == pods else now
        self._pods.append((since, pods))

    def _not_lost(self) -> list[DeviceKey]:
        return [key for key, each in self._doubted.items() if not each.is_lost]
