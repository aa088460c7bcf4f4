"""Cards that pods hold: listed while they are held, and not offered under another resource or name.

The kubelet counts by name, and considers a renamed card free. So a renamed card is not offered until the
pod that held it then has released its former name, even if another card gets that name later. Until
`certain_at` the kubelet may not have been asked yet: the card is not offered before then, and holders
found at the first update afterwards still count.
"""

from collections.abc import Collection, Iterable, Iterator

from biren_plugin.core.model import Device, Identity
from biren_plugin.core.observed import (
    NO_HOLDERS,
    ClaimsSeen,
    Holder,
    Holders,
    Observed,
)
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from biren_plugin.core.parse.sysfs import number_of
from biren_plugin.records import mutable


def held_and_gone(listed: Collection[tuple[str, str]], holders: Holders) -> Iterator[Device]:
    """Return devices that a pod holds and that are not `listed`, by resource and id: replaced or gone."""
    for (resource, id_), pod in holders.items():
        number = number_of(id_)
        if (resource, id_) in listed or number is None:
            continue
        reason = (
            f"pod {pod} holds {id_}, which is not a {resource} any more; "
            "its containers may fail: delete the pod to release it"
        )
        yield Device(Card(id_, number, present=False), resource, (reason,))


def unless_held_unnoticed(device: Device, holders: Holders) -> Device:
    """Return the device; Unhealthy while a pod holds it without a record in the kubelet."""
    pod = holders.get((device.resource, device.id))
    if pod is None or not pod.forgotten:
        return device
    if pod.perhaps:
        return device.because(
            f"the kubelet restarted right after it allocated this card and has lost its record of that: pod {pod} "
            "may hold it, and it returns to service once that pod is deleted"
        )
    return device.because(
        f"pod {pod} still holds it, and the kubelet has lost its record of that: "
        "it returns to service once that pod is deleted"
    )


def unless_held_elsewhere(device: Device, holders: Holders) -> Device:
    """Return the device; Unhealthy while a pod holds its id under another resource."""
    for resource in RESOURCE_OF_SPLIT.values():
        pod = holders.get((resource, device.id))
        if pod is not None and resource != device.resource and device.card.present:
            return device.because(
                f"pod {pod} still holds {device.id} as a {resource}: "
                "it returns to service once that pod is deleted"
            )
    return device


def unless_claimed(device: Device, claims: ClaimsSeen) -> Device:
    """The device; Unhealthy while a claim holds it through Dynamic Resource Allocation."""
    name = device.pool_name
    uid = claims.holder_of(name) if name is not None else None
    if uid is None:
        return device
    use = claims.believed.get(uid)
    who = f"claim {use} of pod {use.pod}" if use is not None else f"the claim with uid {uid}"
    return device.because(
        f"{who} still holds it through Dynamic Resource Allocation: "
        "it returns to service once its pod has ended and the claim was released"
    )


def holder_of(device: Device, seen: Observed) -> Holder | None:
    """The container that holds it, whichever way it was allocated; None if none is known to."""
    holder = (seen.holders or NO_HOLDERS).get((device.resource, device.id))
    if holder is not None or seen.claims is None:
        return holder
    name = device.pool_name
    uid = seen.claims.holder_of(name) if name is not None else None
    use = seen.claims.believed.get(uid) if uid is not None else None
    return use.pod if use is not None else None


@mutable
class _Former:
    """The former name of a card."""

    id: str
    holder: Holder | None
    """The pod that held it under that name when it was renamed."""
    certain_at: float
    certain: bool = False


class RenamedCards:
    """The renamed cards, by identity."""

    def __init__(self) -> None:
        self._former: dict[Identity, _Former] = {}

    def note(
        self,
        before: Iterable[Device],
        after: Iterable[Device],
        holders: Holders,
        certain_at: float,
    ) -> None:
        """Note that a GPU's devices were replaced; those with the same identity were renamed."""
        names = {device.identity: device.id for device in before}
        for device in after:
            if device.identity in names:
                known = self._former.get(device.identity)
                old = known.id if known is not None else names[device.identity]
                if old != device.id:
                    holder = holders.get((device.resource, old))
                    self._former[device.identity] = _Former(old, holder, certain_at)

    def unless_held(self, device: Device, holders: Holders, now: float) -> Device:
        """Return the device; Unhealthy while a pod holds it, or may hold it, under its former name."""
        former = self._former.get(device.identity)
        if former is None or not device.healthy:
            return device
        pod = holders.get((device.resource, former.id))
        if not former.certain:
            former.holder, former.certain = pod, now >= former.certain_at
            if pod is None and not former.certain:
                return device.because(
                    f"it was {former.id} a moment ago; "
                    "it is offered once the kubelet confirms that no pod holds it as such"
                )
        if pod is None or pod != former.holder:
            del self._former[device.identity]
            return device
        return device.because(
            f"pod {pod} still holds it under its former name {former.id}: "
            "it returns to service once that pod is deleted"
        )

    def forget_others(self, identities: Collection[Identity]) -> None:
        """Forget all cards without one of these identities."""
        for identity in self._former.keys() - identities:
            del self._former[identity]
