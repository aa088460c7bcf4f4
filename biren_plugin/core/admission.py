"""The kubelet's requests: answered with cards, or refused with a sentence for the pod's author."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from biren_plugin.core.card_names import by_number
from biren_plugin.core.model import Device, DeviceList, Inventory
from biren_plugin.core.parse.card import Card
from biren_plugin.core.placement.choose import Placement, choose
from biren_plugin.core.placement.topology import Topology
from biren_plugin.errors import InvalidRequest, NotReady

RETRY = "delete the pod so that it is scheduled again"


class PreferenceRequest(NamedTuple):
    """One container's wish: `size` of `available`, `must_include` among them."""

    available: tuple[str, ...]
    """All free devices, in any order, including `must_include`."""
    must_include: tuple[str, ...]
    """Devices that the choice must contain."""
    size: int


def cards_for(
    requests: Sequence[Sequence[str]], offered: DeviceList, inventory: Inventory
) -> list[list[Card]]:
    """Return the cards of each container's request, in order.

    `requests` holds device ids; `inventory` only serves to name the resource of an id that is not
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
            raise InvalidRequest(f"{device_id} is not a device of this node; {RETRY}")
        raise InvalidRequest(
            f"{device_id} is a {elsewhere.resource}, not a {offered.resource}; {RETRY}"
        )
    if not device.healthy:
        raise NotReady(f"{device_id} is Unhealthy: {'; '.join(device.reasons)}; then {RETRY}")
    return device


def preferred(
    request: PreferenceRequest, offered: DeviceList, topology: Topology, placement: Placement
) -> list[str]:
    """Return the best choice for the request, by card number.

    The choice contains `must_include`; the rest is available, `offered` as Healthy and in the topology. It
    is smaller than requested if there are not enough: the answer is a hint. Raises `InvalidRequest` for a
    request that contradicts itself.
    """
    must, size = request.must_include, request.size
    if size < 0:
        raise InvalidRequest(f"a choice of {size} devices is asked for; give 0 or more")
    for ids in (request.available, must):
        twice = next((id_ for id_, count in Counter(ids).items() if count > 1), None)
        if twice is not None:
            raise InvalidRequest(f"{twice} is named twice in one list of the request")
    if len(must) > size:
        raise InvalidRequest(f"{len(must)} devices must be in a choice of {size}")
    healthy = {device.id for device in offered.devices if device.healthy}
    usable = {id_ for id_ in request.available if id_ in healthy}.union(must)
    # Devices unknown to the topology are chosen last, except those that must be included.
    known = usable & topology.place.keys()
    strangers = sorted(usable - known, key=lambda id_: (id_ not in must, by_number(id_)))
    held = [id_ for id_ in strangers if id_ in must]
    wanted = min(size - len(held), len(known))
    chosen = choose(topology, known, known.intersection(must), wanted, placement)
    return sorted([*chosen, *strangers[: size - wanted]], key=by_number)
