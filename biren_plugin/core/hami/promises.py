"""Which pod the kubelet asks for, and whether it asks for the cards that HAMi promised to that pod.

1. Neither GetPreferredAllocation nor Allocate names a pod. The pods in question are those that HAMi
   bound to this node, that have cards left to allocate and that the kubelet has not admitted yet.
   HAMi's node lock leaves one of them at a time, but for pods whose init containers alone have cards.
2. The kubelet admits a pod whole, init containers first, one Allocate for each container with cards:
   so a pod whose allocation has begun goes on before any other, with its next entry.
3. Of a pod that was bound before this daemon started, another daemon may have allocated the first
   entries: as long as this one has allocated none, any entry of it may be meant. Where two entries share
   cards, as those of init containers do, the shared cards do not show which: the next entry is meant.
4. Cards that are promised to one pod are allocated to no other.

Source of the kubelet's order: `devicemanager` of Kubernetes 1.36.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from biren_plugin.core.hami.annotations import (
    ALLOCATED,
    BIND_TIME,
    NODE,
    PHASE,
    SUCCESS,
    TO_ALLOCATE,
    annotation,
    in_order,
    read_entries,
)
from biren_plugin.core.parse.api_shapes import Object
from biren_plugin.records import frozen


@frozen
class Promise:
    """What HAMi has promised to one pod on this node."""

    namespace: str
    pod: str
    uid: str
    text: str
    """The annotation with the cards that are left to allocate, as it is stored."""
    record: str = ""
    """HAMi's record of all cards of the pod."""
    phase: str = ""
    """HAMi's, not the pod's."""
    bound_at: tuple[int, int] = (0, 0)
    """Grows from pod to pod: seconds since 1970, then the object's version."""
    admitted: bool = False
    """Whether the kubelet has reported on the pod: it admitted or refused it, and asks nothing more."""
    failed: bool = False
    """Whether the pod has failed, as one that was refused has."""

    @property
    def name(self) -> str:
        """`namespace/pod`."""
        return f"{self.namespace}/{self.pod}"


Entry = tuple[int, frozenset[str]]
"""A container's place in the pod, and its cards."""


@frozen
class Progress:
    """What this daemon has allocated; the API server may not show it yet."""

    done: Mapping[str, int] = attrs.Factory(dict)
    """How many entries, by pod uid: containers are admitted in order."""
    since: int = 0
    """When the daemon started, in seconds since 1970."""

    def has_begun(self, promise: Promise) -> bool:
        """Whether this daemon has allocated cards of that pod."""
        return promise.uid in self.done

    def left(self, promise: Promise) -> list[Entry]:
        """The entries of that pod whose cards are left to allocate."""
        done = self.done.get(promise.uid, 0)
        entries = enumerate(read_entries(promise.text))
        return [(place, cards) for place, cards in entries if cards and place >= done]

    def asked(self, promise: Promise) -> list[Entry]:
        """Those of them that the kubelet may ask for now."""
        left = self.left(promise)
        begun_by_another = promise.bound_at[0] <= self.since and not self.has_begun(promise)
        is_plain = begun_by_another and _are_apart(read_entries(promise.record))
        return left if is_plain else left[:1]

    def plus(self, promise: Promise, place: int) -> "Progress":
        """With the entries up to that place, of the one pod whose admission goes on."""
        return attrs.evolve(self, done={promise.uid: place + 1})


def _are_apart(entries: Sequence[frozenset[str]]) -> bool:
    """Whether no card is in two of the entries."""
    return len(frozenset[str]().union(*entries)) == sum(map(len, entries))


def promise_of(pod: Object, node: str) -> Promise | None:
    """What `pod` was promised on `node`; None if HAMi has not chosen Biren cards of that node for it."""
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    text = annotation(pod, TO_ALLOCATE)
    if not text or annotation(pod, NODE) != node:
        return None
    phase = status.get("phase", "Pending")
    return Promise(
        namespace=str(metadata.get("namespace", "")),
        pod=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        text=text,
        record=annotation(pod, ALLOCATED),
        phase=annotation(pod, PHASE),
        bound_at=(
            _whole(annotation(pod, BIND_TIME)),
            _whole(str(metadata.get("resourceVersion", ""))),
        ),
        admitted=phase != "Pending" or bool(status.get("startTime")),
        failed=phase == "Failed",
    )


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def waiting(pods: Iterable[Object], node: str, progress: Progress) -> list[Promise]:
    """The promises that the kubelet may ask for next, in the order in which it does."""
    found = [
        promise
        for pod in pods
        if (pod.get("spec") or {}).get("nodeName") == node
        and (promise := promise_of(pod, node)) is not None
        and not promise.admitted
        and promise.phase != SUCCESS
        and progress.left(promise)
    ]
    # One whose allocation has begun is in the middle of its admission.
    return sorted(found, key=lambda each: (not progress.has_begun(each), each.bound_at, each.name))


def preferred_by_promise(
    promises: Sequence[Promise],
    progress: Progress,
    available: Collection[str],
    must: Collection[str],
    size: int,
) -> frozenset[str] | None:
    """The promised cards for a container that wants `size` of `available`, `must` among them, or None.

    The first pod is asked for; only a number that none of its entries has points to another.
    """
    free = frozenset(available)
    for promise in promises:
        for _, cards in progress.asked(promise):
            if len(cards) == size and cards.issuperset(must) and cards <= free:
                return cards
    return None


@frozen
class Match:
    """The kubelet asks for what HAMi promised to this pod."""

    promise: Promise
    place: int
    """Of the entry that was asked for."""
    is_last: bool
    """Whether the pod has no further entry."""


@frozen
class Mismatch:
    """Allocating these cards would break a promise."""

    promise: Promise | None
    """To the pod that the kubelet asks for; None if none of the promises is its own."""
    text: str
    """For the author of the pod, with what to do."""


@frozen
class Unmatched:
    """No pod was promised any of these cards."""

    text: str


def match(
    promises: Sequence[Promise], progress: Progress, ids: Collection[str]
) -> Match | Mismatch | Unmatched:
    """What an Allocate for `ids` means, with `promises` in the order of `waiting`."""
    asked = frozenset(ids)
    for promise in promises:
        for place, cards in progress.asked(promise):
            if cards == asked:
                return Match(
                    promise, place, is_last=not progress.plus(promise, place).left(promise)
                )
    if not promises:
        return Unmatched(
            f"no pod that HAMi bound to this node waits for {in_order(asked)}; a pod with the label "
            "hami.io/webhook: ignore is not in HAMi's books"
        )
    # A number that the first pod does not want next is another pod's wish.
    first = promises[0]
    (_, cards), *_ = progress.asked(first)
    if len(cards) == len(asked):
        return Mismatch(
            first,
            f"HAMi promised {in_order(cards)} to {first.name}, and the kubelet asks for "
            f"{in_order(asked)}; let no init container ask for more cards than the first container "
            "with cards, then create the pod again",
        )
    for promise in promises:
        for _, cards in progress.left(promise):
            if taken := asked & cards:
                return Mismatch(
                    None,
                    f"HAMi promised {in_order(taken)} to {promise.name}; "
                    "create the pod again without the label hami.io/webhook: ignore",
                )
    return Unmatched(f"no pod that HAMi bound to this node was promised {in_order(asked)}")
