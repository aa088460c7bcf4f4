"""Which container holds which card, also while a kubelet that has restarted does not report it.

1. A kubelet that lost its checkpoint lists the running pods without their devices, and allocates these
   again (*seen* on 1.36). One that kept it shows at least one device that was known, and is then believed.
2. For up to a second after its start a kubelet lists no pod. Then it adds one after the other, the oldest
   first, and admits each before it adds the next. So it may ask for a card before it lists the pod that
   holds the card. A pod that it does not list `LISTING` after its first answer is gone.
3. An allocated card counts as held, although no list shows by whom yet. If the kubelet restarts before one
   does, each pod that it lists and that was not there before the allocation may hold the card.
4. Until a list settles who holds a card, there is a `doubt`: no other container may get it.

Times are seconds of any clock that only goes forward.
"""

import math
from collections.abc import Collection, Iterator
from typing import Final

import attrs

from biren_plugin.core.observed import NO_HOLDERS, Holder, Holders, KubeletView
from biren_plugin.records import frozen, mutable

LISTING: Final = 30.0
"""Seconds from a kubelet's first answer: a pod that is not listed then is gone."""
BATCH: Final = 1.0
"""Seconds from a kubelet's first answer with a pod to one with all the pods that run."""
RECORDED: Final = 2.0
"""Seconds after an allocation in which the kubelet shows the container that got the card, if one did."""
FORGET_AFTER: Final = 60.0
"""Seconds without an answer, after which nothing is known: a pod that has gone must not keep a card forever."""

_Key = tuple[str, str]
"""Resource and id of a device."""
_Pods = frozenset[tuple[str, str]]


@frozen
class _Registered:
    """With which kubelet a resource is registered."""

    kubelet: object = None
    at: float = -math.inf


@mutable
class _Unlisted:
    """An allocated card that no list has shown since."""

    at: float
    before: _Pods
    """The pods that were listed before."""
    suspects: _Pods = frozenset()
    """The pods of the next kubelet, of which one may hold the card."""
    is_certain: bool = True
    """Whether an earlier kubelet than the present one allocated it."""


@mutable
class _Start:
    """The first time of a kubelet that has restarted."""

    at: float
    """When it was asked first."""
    known: Holders
    """What the kubelets before had a record of."""
    listing_since: float | None = None
    """When it first listed a pod."""
    listed: _Pods = frozenset()
    """The pods that it has listed so far."""
    kept_record: bool = False
    """Whether it shows a device that was known."""
    marked: set[_Key] = attrs.Factory(set)
    """Cards that it seems to have forgotten."""

    def lists_all(self, now: float) -> bool:
        """Return whether what is listed at `now` is every pod that the kubelet knows by itself."""
        return self.listing_since is not None and now - self.listing_since > BATCH

    def may_list(self, pod: tuple[str, str], now: float) -> bool:
        """Return whether a pod that is not listed at `now` may still come, rather than being gone."""
        return pod not in self.listed and now - self.at <= LISTING


class HolderMemory:
    """Takes registrations, allocations and the kubelet's answers in the order in which they happen."""

    def __init__(self) -> None:
        self._holders: Holders = NO_HOLDERS
        self._registered: dict[str, _Registered] = {}
        self._registered_then: dict[str, _Registered] = {}
        """Those at the last answer."""
        self._unlisted: dict[_Key, _Unlisted] = {}
        self._orphaned: dict[_Key, _Unlisted] = {}
        """Those that an earlier kubelet allocated."""
        self._suspects: dict[_Key, _Pods] = {}
        """Those of a kubelet that lost its record: the pods of which one may hold the card."""
        self._kubelet: object = None
        self._view = KubeletView(-math.inf)
        self._start: _Start | None = None
        """None: the kubelet has listed all of its pods."""
        self._pods: list[tuple[float, _Pods]] = []
        """The pods of the last answers, with their times; of those before `BATCH` ago only the last."""

    @property
    def is_settling(self) -> bool:
        """Return whether the next answer may settle who holds a card."""
        start = self._start
        return start is not None and not start.kept_record and bool(self._holders or self._orphaned)

    @property
    def is_listing(self) -> bool:
        """Return whether it is settling, and the kubelet adds pods to its list at this moment."""
        start = self._start
        return self.is_settling and start is not None and not start.lists_all(self._view.at)

    def registering(self, resource: str, kubelet: object, now: float) -> None:
        """Note that `resource` is about to be registered with this `kubelet`, which may have restarted."""
        if self._registered.get(resource, _Registered()).kubelet != kubelet:
            self._registered[resource] = _Registered(kubelet, now)
            self._orphan(resource, is_certain=True)

    def allocated(self, resource: str, ids: Collection[str], now: float) -> None:
        """Note that a container gets these cards."""
        earlier = [pods for at, pods in self._pods if at <= now - BATCH]
        before = earlier[-1] if earlier else self._pods[0][1] if self._pods else frozenset()
        for id_ in ids:
            self._unlisted[resource, id_] = _Unlisted(now, before)

    def doubt(self, resource: str, id_: str, now: float) -> str:
        """Return why a container may hold the card unknown to the resource's kubelet: a clause; empty if none may."""
        key, registered = (resource, id_), self._registered.get(resource, _Registered())
        if now - max(self._view.at, registered.at) > FORGET_AFTER:
            return ""
        if key in self._orphaned or key in self._suspects:
            return f"{id_} was allocated right before the kubelet restarted, which does not report to which pod"
        if (holder := self._holders.get(key)) is None:
            return ""
        if holder.forgotten:
            return f"pod {holder} still holds {id_}, and the kubelet has lost its record of that"
        is_shown = key in (self._view.holders or NO_HOLDERS)
        if self._view.at < registered.at or (self.is_settling and not is_shown):
            return f"pod {holder} held {id_} before the kubelet restarted, which does not list that pod yet"
        return ""

    def answered(self, view: KubeletView, kubelet: object) -> Holders:
        """Return the holders by an answer of `kubelet`: those that it shows, has forgotten, or may have."""
        if self._kubelet not in (None, kubelet):
            self._begin(view.at)
        self._kubelet, self._view = kubelet, view
        asked = {key: each for key, each in self._registered.items() if each.at <= view.at}
        self._registered_then = {**self._registered_then, **asked}
        shown = view.holders or NO_HOLDERS
        if (start := self._start) is not None:
            self._follow(start, view)
        self._holders = {**dict(self._not_shown(view)), **shown}
        self._settle_allocations(view)
        if start is not None and view.at - start.at > LISTING:
            self._start = None
        self._remember_pods(view)
        return {**dict(self._perhaps()), **self._holders}

    def _begin(self, now: float) -> None:
        """Another kubelet answers."""
        before, shown = self._start, self._view.holders or NO_HOLDERS
        if before is not None and before.listing_since is not None and not before.kept_record:
            self._holders = {
                key: pod if key in shown else attrs.evolve(pod, forgotten=True)
                for key, pod in self._holders.items()
            }
            self._settle_suspects()
        known = {key: pod for key, pod in self._holders.items() if not pod.forgotten}
        self._start = _Start(now, known)
        for resource, registered in self._registered.items():
            # Registered since the last answer, it is so with this kubelet, or with one that never answered.
            is_certain = registered == self._registered_then.get(resource)
            self._orphan(resource, is_certain=is_certain)

    def _orphan(self, resource: str, *, is_certain: bool) -> None:
        for key in [each for each in self._unlisted if each[0] == resource]:
            self._orphaned[key] = self._unlisted.pop(key)
            self._orphaned[key].is_certain = is_certain

    def _settle_suspects(self) -> None:
        """What the kubelet has listed by now is all that may hold a card which an earlier one allocated."""
        for key in [key for key, each in self._orphaned.items() if each.suspects]:
            self._suspects[key] = self._orphaned.pop(key).suspects

    def _follow(self, start: _Start, view: KubeletView) -> None:
        shown = view.holders or NO_HOLDERS
        if start.listing_since is None and view.pods:
            start.listing_since = view.at
        start.listed |= view.pods
        if not start.kept_record and (
            any(key in shown and _pod(shown[key]) == _pod(pod) for key, pod in start.known.items())
            or any(key in shown and each.is_certain for key, each in self._orphaned.items())
        ):
            start.kept_record = True
            self._holders = {
                key: pod for key, pod in self._holders.items() if key not in start.marked
            }

    def _not_shown(self, view: KubeletView) -> Iterator[tuple[_Key, Holder]]:
        """Yield what is held although `view` does not show it."""
        shown, start = view.holders or NO_HOLDERS, self._start
        again = {attrs.evolve(pod, forgotten=False) for pod in shown.values()}
        believed = start is None or start.kept_record
        for key, pod in self._holders.items():
            if key in shown or attrs.evolve(pod, forgotten=False) in again:
                continue  # a container that was started again has other cards
            if _pod(pod) not in view.pods:
                may_come = start is not None and start.may_list(_pod(pod), view.at)
                if may_come and (pod.forgotten or not believed):
                    yield key, pod
            elif pod.forgotten:
                yield key, pod
            elif start is not None and not believed:
                start.marked.add(key)
                yield key, attrs.evolve(pod, forgotten=True)

    def _settle_allocations(self, view: KubeletView) -> None:
        start = self._start
        for key in view.holders or NO_HOLDERS:
            self._unlisted.pop(key, None)
            self._orphaned.pop(key, None)
            self._suspects.pop(key, None)
        if start is None:  # the same kubelet: a resource was registered with it again
            for key in [each for each in self._orphaned if self._registered[each[0]].at <= view.at]:
                self._unlisted[key] = self._orphaned.pop(key)
        elif start.kept_record:
            self._orphaned.clear()
        elif start.lists_all(view.at):
            self._settle_suspects()
            self._orphaned.clear()
        elif start.listing_since is not None:
            for each in self._orphaned.values():
                each.suspects |= view.pods - each.before
        if start is None or start.lists_all(view.at):
            running = {key: pods & view.pods for key, pods in self._suspects.items()}
            self._suspects = {key: pods for key, pods in running.items() if pods}
        self._unlisted = {
            key: each for key, each in self._unlisted.items() if view.at - each.at <= RECORDED
        }

    def _perhaps(self) -> Iterator[tuple[_Key, Holder]]:
        """Yield the cards that one of some pods may hold, each with one of these pods."""
        unsettled = {key: each.suspects for key, each in self._orphaned.items()}
        for key, pods in {**unsettled, **self._suspects}.items():
            if pods:
                yield key, Holder(*min(pods), forgotten=True, perhaps=True)

    def _remember_pods(self, view: KubeletView) -> None:
        if self._start is not None and not view.pods:
            return  # it does not list them yet
        self._pods.append((view.at, view.pods))
        while len(self._pods) > 1 and self._pods[1][0] <= view.at - BATCH:
            del self._pods[0]


def _pod(holder: Holder) -> tuple[str, str]:
    return holder.namespace, holder.pod
