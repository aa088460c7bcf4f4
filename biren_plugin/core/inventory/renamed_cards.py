"""Cards whose name has shifted while a pod may hold them under the old one.

The kubelet counts by name, and considers a renamed card free. So a renamed card is not offered until the
pod that held it then has released its former name, even if another card gets that name later. Until
`certain_at` the kubelet may not have been asked yet: the card is not offered before then, and holders
found at the first update afterwards still count.
"""

from collections.abc import Collection, Iterable

import attrs

from biren_plugin.core.model import Device, Identity
from biren_plugin.core.observed import Holder, Holders


@attrs.define
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
