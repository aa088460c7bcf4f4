"""From snapshots to what the node is believed to hold: splits settle, cards are retired.

1. The cards with one `physical_id` are one GPU; their number is its split: 1, 2 or 4.
2. A group of cards is believed once it has looked the same long enough: at once when the daemon
   starts, `APPEAR_SETTLE` for a GPU that appears, `SPLIT_SETTLE` for a known GPU that looks
   different, or whose memory contradicts the node's other GPUs. Any other number never is.
3. While a GPU looks different from what is believed, its devices are Unhealthy: a pod must not
   get a card that turns into another.
4. A card leaves in two steps: Unhealthy for `RETIRE_AFTER`, then out of the list. (kubelet 1.36
   panics over a device that leaves the list while its Allocate is in flight.)
5. A resource without devices stays for `EMPTY_LINGER`, with an empty list, then goes.

Times are seconds of any clock that only goes forward.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from biren_plugin.core.model import (
    RESOURCE_OF_SPLIT,
    Card,
    Device,
    DeviceList,
    HostFacts,
    Inventory,
    Snapshot,
)

APPEAR_SETTLE: Final = 0.9  # two looks, a second apart, that agree
SPLIT_SETTLE: Final = 3.0
ALLOCATE_DEADLINE: Final = 2.0
"""How long an `Allocate` may take; `wire.device_plugin` gives it to its server."""
RETIRE_AFTER: Final = ALLOCATE_DEADLINE + 1.0
EMPTY_LINGER: Final = 1.0
_MEMORY_TOLERANCE: Final = 0.1


@attrs.define
class _Gpu:
    """What is known of one physical GPU."""

    believed: tuple[Card, ...] = ()
    candidate: tuple[Card, ...] = ()
    """The cards that it shows now, where they differ from what is believed."""
    candidate_since: float = 0.0
    gone_since: float | None = None


class InventoryKeeper:
    """Takes every snapshot in turn, and says after each what the node holds."""

    def __init__(self) -> None:
        self._gpus: dict[int, _Gpu] = {}
        self._retired: dict[tuple[str, str], tuple[Device, float]] = {}
        self._emptied: dict[str, float | None] = {}  # since when each has no device; None: it has
        self._gpu_of: dict[str, int] = {}  # by card name, as last read
        self._starting = True

    def update(self, snapshot: Snapshot, now: float, *, pulse: int = 0) -> Inventory:
        """What the node holds at `now`, having looked like `snapshot`."""
        groups, strays = group_by_gpu(snapshot.cards, self._gpu_of)
        self._gpu_of = {card.name: gpu for gpu, cards in groups.items() for card in cards}
        unsettled = [
            f"{card.name}: physical_id cannot be read; see /sys/class/biren/{card.name}/device"
            for card in strays
        ]
        for physical_id in groups:
            self._gpus.setdefault(physical_id, _Gpu())
        for physical_id, gpu in list(self._gpus.items()):
            seen = groups.get(physical_id, ())
            if not seen:
                self._lose(physical_id, gpu, now)
            elif _same(seen, gpu.believed):
                gpu.believed = _with_known_memory(seen, gpu.believed)
                gpu.candidate, gpu.gone_since = (), None
            else:
                self._consider(physical_id, gpu, seen, groups, now)
            if gpu.candidate and (gpu.believed or split_of(seen) not in RESOURCE_OF_SPLIT):
                unsettled.append(_describe_unsettled(physical_id, len(seen)))
        self._starting = False
        lists = self._lists(snapshot.host, now, pulse)
        return Inventory(lists, tuple(unsettled), snapshot.host, snapshot.driver_loaded)

    def _lose(self, physical_id: int, gpu: _Gpu, now: float) -> None:
        gpu.candidate = ()
        if gpu.gone_since is None:
            gpu.gone_since = now
        if not gpu.believed or now - gpu.gone_since >= RETIRE_AFTER:
            del self._gpus[physical_id]

    def _consider(
        self,
        physical_id: int,
        gpu: _Gpu,
        seen: tuple[Card, ...],
        groups: Mapping[int, tuple[Card, ...]],
        now: float,
    ) -> None:
        gpu.gone_since = None
        if not _same(seen, gpu.candidate):
            gpu.candidate_since = now
        gpu.candidate = seen
        if split_of(seen) not in RESOURCE_OF_SPLIT:
            return
        if gpu.believed or _contradicted(physical_id, groups):
            settle = SPLIT_SETTLE
        else:
            settle = 0.0 if self._starting else APPEAR_SETTLE
        if now - gpu.candidate_since < settle:
            return
        for device in _devices(gpu.believed):
            replaced = device.because(f"replaced by a new split of GPU {physical_id}")
            self._retired[device.resource, device.id] = (replaced, now)
        gpu.believed, gpu.candidate = seen, ()

    def _lists(self, host: HostFacts, now: float, pulse: int) -> tuple[DeviceList, ...]:
        by_resource: dict[str, dict[str, Device]] = {}
        for device in self._devices_by_weight(now):
            by_resource.setdefault(device.resource, {})[device.id] = device
        lists = []
        for resource in RESOURCE_OF_SPLIT.values():
            devices = by_resource.get(resource, {})
            if devices:
                self._emptied[resource] = None
            elif not self._lingers(resource, now):
                continue
            ordered = sorted(devices.values(), key=lambda device: device.card.number)
            lists.append(DeviceList(resource, tuple(ordered), host, pulse))
        return tuple(lists)

    def _lingers(self, resource: str, now: float) -> bool:
        if resource not in self._emptied:
            return False
        since = self._emptied[resource]
        if since is None:
            since = self._emptied[resource] = now
        if now - since < EMPTY_LINGER:
            return True
        del self._emptied[resource]
        return False

    def _devices_by_weight(self, now: float) -> Iterable[Device]:
        """All devices, those that count more later: a reused id belongs to the card that is there."""
        for key, (device, since) in list(self._retired.items()):
            if now - since >= RETIRE_AFTER:
                del self._retired[key]
            else:
                yield device
        for physical_id, gpu in self._gpus.items():
            for device in _devices(gpu.believed):
                if gpu.gone_since is not None:
                    yield device.because(
                        f"GPU {physical_id} is gone from /sys/class/biren; "
                        "see `lspci -d 1ee0:` and the kernel's log"
                    )
                elif gpu.candidate:
                    yield device.because(_describe_unsettled(physical_id, len(gpu.candidate)))
        for gpu in self._gpus.values():
            if gpu.gone_since is None and not gpu.candidate:
                yield from _devices(gpu.believed)


def group_by_gpu(
    cards: Iterable[Card], last_gpu_of: Mapping[str, int] = {}
) -> tuple[dict[int, tuple[Card, ...]], list[Card]]:
    """The cards of each physical GPU, by number, and the cards that belong to none.

    A card whose `physical_id` cannot be read belongs to the GPU at its PCI address, if another card
    tells which (*assumed*: the instances of a GPU share its address); else it stays where it last
    was (`last_gpu_of`, by name).
    """
    cards = sorted(cards, key=lambda card: card.number)
    gpu_at = {
        card.pci_address: card.physical_id
        for card in cards
        if card.pci_address is not None and card.physical_id is not None
    }
    groups: dict[int, tuple[Card, ...]] = {}
    strays = []
    for card in cards:
        physical_id = card.physical_id
        if physical_id is None:
            physical_id = gpu_at.get(card.pci_address or "", last_gpu_of.get(card.name))
        if physical_id is None:
            strays.append(card)
        else:
            groups[physical_id] = (*groups.get(physical_id, ()), card)
    return groups, strays


def split_of(cards: tuple[Card, ...]) -> int:
    """Into how many a GPU with these cards is split: as the host says, else their number."""
    return cards[0].split or len(cards)


def _same(seen: tuple[Card, ...], known: tuple[Card, ...]) -> bool:
    """Whether both are the same split: a quarter alone has the name of the whole, not its memory."""
    return len(seen) == len(known) and all(
        now.name == then.name and _about_the_same(now.memory, then.memory)
        for now, then in zip(seen, known, strict=True)
    )


def _about_the_same(one: int | None, other: int | None) -> bool:
    """Another split changes a card's memory by half at least; a driver may keep a little for itself."""
    if one is None or other is None:
        return True
    return abs(one - other) <= max(one, other) * _MEMORY_TOLERANCE


def _with_known_memory(seen: tuple[Card, ...], known: tuple[Card, ...]) -> tuple[Card, ...]:
    return tuple(
        now if now.memory is not None else attrs.evolve(now, memory=then.memory)
        for now, then in zip(seen, known, strict=True)
    )


def _devices(cards: tuple[Card, ...]) -> list[Device]:
    return [Device(card, RESOURCE_OF_SPLIT[split_of(cards)]) for card in cards]


def _contradicted(physical_id: int, groups: Mapping[int, tuple[Card, ...]]) -> bool:
    """Whether a GPU's cards hold clearly less memory than another GPU of the node: some are missing."""
    own = _memory(groups[physical_id])
    others = [_memory(cards) for other, cards in groups.items() if other != physical_id]
    most = max((memory for memory in others if memory is not None), default=None)
    if own is None or most is None:
        return False
    return own < most * (1 - _MEMORY_TOLERANCE)


def _memory(cards: tuple[Card, ...]) -> int | None:
    sizes = [card.memory for card in cards]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _describe_unsettled(physical_id: int, seen: int) -> str:
    cards = "1 card is" if seen == 1 else f"{seen} cards are"
    return (
        f"GPU {physical_id} is being split anew and has not settled, {cards} there; "
        "if it stays so, see `brsmi gpu` on the node"
    )
