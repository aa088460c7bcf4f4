"""Which cards a request gets, and which requests are refused, with a sentence for the pod's author."""

from collections.abc import Sequence

from biren_plugin.core.model import Card, Device, DeviceList, Inventory
from biren_plugin.core.sysfs import number_of
from biren_plugin.errors import InvalidRequest, NotReady

_RETRY = "delete the pod so that it is scheduled anew"


def cards_for(
    requests: Sequence[Sequence[str]], offered: DeviceList, inventory: Inventory
) -> list[list[Card]]:
    """The cards of each container's request, in order.

    `requests` holds device ids; `inventory` is only used to say where an id belongs that is not
    `offered`. Raises `InvalidRequest` and `NotReady`.
    """
    seen: set[str] = set()
    answer = []
    for request in requests:
        cards = []
        for device_id in request:
            if device_id in seen:
                raise InvalidRequest(f"{device_id} is asked for twice in one request")
            seen.add(device_id)
            cards.append(_usable(device_id, offered, inventory).card)
        answer.append(cards)
    return answer


def _usable(device_id: str, offered: DeviceList, inventory: Inventory) -> Device:
    device = offered.find(device_id)
    if device is None:
        elsewhere = inventory.find(device_id)
        if elsewhere is None or elsewhere.resource == offered.resource:
            raise InvalidRequest(f"{device_id} is no device of this node; {_RETRY}")
        raise InvalidRequest(
            f"{device_id} is a {elsewhere.resource}, not a {offered.resource}; {_RETRY}"
        )
    if not device.healthy:
        raise NotReady(f"{device_id} is Unhealthy: {'; '.join(device.reasons)}; then {_RETRY}")
    return device


def preferred(
    available: Sequence[str], must_include: Sequence[str], size: int, offered: DeviceList
) -> list[str]:
    """`size` ids of `available`, `must_include` first, then healthy ones by card number.

    Fewer where there are fewer: the answer is a hint. Raises `InvalidRequest` for a request that
    contradicts itself.
    """
    if size < 0 or size < len(must_include):
        raise InvalidRequest(f"{len(must_include)} cards must be in a choice of {size}")
    for ids in (available, must_include):
        if len(set(ids)) != len(ids):
            raise InvalidRequest("a card is named twice in one request")
    healthy = {device.id for device in offered.devices if device.healthy}
    others = sorted((set(available) & healthy) - set(must_include), key=_by_number)
    return [*must_include, *others][:size]


def _by_number(device_id: str) -> tuple[int, str]:
    number = number_of(device_id)
    return (-1 if number is None else number, device_id)
