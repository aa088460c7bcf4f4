"""Cards that pods hold: listed as long as they are held, and not offered under another resource."""

from collections.abc import Collection, Iterator

from biren_plugin.core.model import Device
from biren_plugin.core.observed import Holders
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.sysfs import number_of
from biren_plugin.core.parse.vendor import RESOURCE_OF_SPLIT


def held_and_gone(listed: Collection[tuple[str, str]], holders: Holders) -> Iterator[Device]:
    """Devices that a pod holds and that are not `listed`, by resource and id: replaced, or gone earlier."""
    for (resource, id_), pod in holders.items():
        number = number_of(id_)
        if (resource, id_) in listed or number is None:
            continue
        reason = (
            f"pod {pod} holds {id_}, which is not a {resource} any more; "
            "its containers may fail: delete the pod to release it"
        )
        yield Device(Card(id_, number, present=False), resource, (reason,))


def unless_held_elsewhere(device: Device, holders: Holders) -> Device:
    """The device; Unhealthy while a pod holds its id under another resource."""
    for resource in RESOURCE_OF_SPLIT.values():
        pod = holders.get((resource, device.id))
        if pod is not None and resource != device.resource and device.card.present:
            return device.because(
                f"pod {pod} still holds {device.id} as a {resource}: "
                "it returns to service once that pod is deleted"
            )
    return device
