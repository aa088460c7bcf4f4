"""From what was read to what the node is believed to hold: splits settle, cards are retired.

1. The cards with one `physical_id` are one GPU; their number is its split: 1, 2 or 4.
2. A group of cards is believed once it has looked the same long enough: at once when the daemon
   starts, `APPEAR_SETTLE` for a GPU that appears, `SPLIT_SETTLE` for a known GPU that looks
   different, or that the node's other GPUs or the management library contradict; at once if the
   library says that no split is pending. Any other number never is.
3. While a GPU looks different from what is believed, its devices are Unhealthy: a pod must not
   get a card that turns into another.
4. A GPU that vanishes stays listed, its cards no longer `present`: it counts, and may return.
5. Cards that a new split replaced leave in two steps (`core.leaving`), and not before the pod that
   holds one has gone; nor is a reused `card_N` offered under another resource before. Where the
   split was believed at once, it waits for `SPLIT_SETTLE` at least: a pod may just have got it
   under the old one, and the kubelet has to be asked. A card that was only renamed waits likewise
   for the pod that holds it under its former name (`core.renamed`).
6. A card that only the management library knows is listed, Unhealthy.
7. A resource without devices stays for `EMPTY_LINGER`, with an empty list, then goes.

Times are seconds of any clock that only goes forward.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from biren_plugin.core.inventory.renamed_cards import Renamed
from biren_plugin.core.inventory.retiring import Leaving
from biren_plugin.core.inventory.splits import (
    Cards,
    contradicted_by_memory,
    group_by_gpu,
    most_memory,
    name_of_gpu,
    same_split,
    split_of,
    with_known_memory,
)
from biren_plugin.core.model import Device, DeviceList, HostFacts, Inventory, Snapshot
from biren_plugin.core.observed import NO_HOLDERS, Holders, LibraryRound, Observed
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.sysfs import number_of
from biren_plugin.core.parse.vendor import RESOURCE_OF_SPLIT

APPEAR_SETTLE: Final = 0.9  # two looks, a second apart, that agree
SPLIT_SETTLE: Final = 3.0
EMPTY_LINGER: Final = 1.0


@attrs.define
class _Gpu:
    """What is known of one physical GPU."""

    believed: Cards = ()
    candidate: Cards = ()
    """The cards that it shows now, where they differ from what is believed."""
    candidate_since: float = 0.0
    present: bool = True


class InventoryKeeper:
    """Takes everything that was read, in turn, and says after each what the node holds."""

    def __init__(self) -> None:
        self._gpus: dict[int, _Gpu] = {}
        self._leaving = Leaving()
        self._renamed = Renamed()
        self._emptied: dict[str, float | None] = {}  # since when each has no device; None: it has
        self._gpu_of: dict[str, int] = {}  # by card name, as last read
        self._library_only: dict[int, float] = {}  # since when, by node id
        self._starting = True

    def update(self, seen: Observed, now: float) -> Inventory:
        """What the node holds at `now`; `seen` must have a snapshot."""
        snapshot = seen.snapshot
        assert snapshot is not None
        groups, strays = group_by_gpu(snapshot.cards, self._gpu_of)
        self._gpu_of = {card.name: gpu for gpu, cards in groups.items() for card in cards}
        unsettled = [
            f"{card.name}: physical_id cannot be read; see {vendor.CLASS_FOLDER}/{card.name}/device"
            for card in strays
        ]
        most = most_memory(groups)
        for physical_id in groups:
            self._gpus.setdefault(physical_id, _Gpu())
        for physical_id, gpu in list(self._gpus.items()):
            cards = groups.get(physical_id, ())
            gpu.present = bool(cards)
            if not cards:
                gpu.candidate = ()
                if not gpu.believed:
                    del self._gpus[physical_id]
            elif same_split(cards, gpu.believed):
                gpu.believed = with_known_memory(cards, gpu.believed)
                gpu.candidate = ()
            else:
                self._consider(gpu, cards, most, seen, now)
            if gpu.candidate and (gpu.believed or split_of(gpu.candidate) not in RESOURCE_OF_SPLIT):
                unsettled.append(_describe_unsettled(gpu.candidate))
        self._starting = False
        unsettled += self._keep_library_only(seen.library, snapshot, now)
        self._keep_held(seen.holders or NO_HOLDERS, now)
        lists = self._lists(seen.holders or NO_HOLDERS, snapshot.host, now, seen.pulse)
        return Inventory(
            lists,
            (*unsettled, *snapshot.left_out),
            host=snapshot.host,
            driver_loaded=snapshot.driver_loaded,
            shows_groups=snapshot.shows_groups,
        )

    def _consider(
        self,
        gpu: _Gpu,
        cards: Cards,
        most: int,
        seen: Observed,
        now: float,
    ) -> None:
        if not same_split(cards, gpu.candidate):
            gpu.candidate_since = now
        gpu.candidate = cards
        if split_of(cards) not in RESOURCE_OF_SPLIT:
            return
        confirmed = _library_says(cards, seen.library, gpu.candidate_since)
        if confirmed:
            settle = 0.0
        elif gpu.believed or confirmed is False or contradicted_by_memory(cards, most):
            settle = SPLIT_SETTLE
        else:
            settle = 0.0 if self._starting else APPEAR_SETTLE
        if now - gpu.candidate_since < settle:
            return
        before, after = _devices(gpu.believed), _devices(cards)
        certain_at = gpu.candidate_since + SPLIT_SETTLE
        self._renamed.note(before, after, seen.holders or NO_HOLDERS, certain_at)
        staying = {(device.resource, device.id) for device in after}
        for device in before:
            if (device.resource, device.id) not in staying:
                reason = f"replaced by a new split of {name_of_gpu(device.card)}"
                self._leaving.keep(device.because(reason), now)
        gpu.believed, gpu.candidate = cards, ()

    def _keep_library_only(
        self, library: LibraryRound | None, snapshot: Snapshot, now: float
    ) -> list[str]:
        """Lists cards that only the library knows; sentences about those that no list can take."""
        in_sysfs = {card.number for card in snapshot.cards} | {
            card.number for gpu in self._gpus.values() for card in gpu.believed
        }
        known = library.known if library is not None else {}
        self._library_only = {
            number: self._library_only.get(number, now)
            for number in known
            if number not in in_sysfs
        }
        without_split = []
        for number, since in self._library_only.items():
            if now - since < SPLIT_SETTLE:  # it may just come or go
                continue
            name = f"{vendor.CARD_PREFIX}{number}"
            reason = (
                f"{name} is known to the management library and not to {vendor.CLASS_FOLDER}; "
                f"see `brsmi gpu`, and `{vendor.KERNEL_LOG}`"
            )
            if (resource := RESOURCE_OF_SPLIT.get(known[number].split or 0)) is None:
                without_split.append(reason)
                continue
            device = Device(Card(name, number, present=False), resource, (reason,))
            self._leaving.keep(device, now)
        return without_split

    def _keep_held(self, holders: Holders, now: float) -> None:
        """Whatever a pod holds stays listed, also what was replaced, or gone before we started."""
        listed = {
            (device.resource, device.id)
            for gpu in self._gpus.values()
            for device in _devices(gpu.believed)
        }
        for (resource, id_), pod in holders.items():
            number = number_of(id_)
            if (resource, id_) in listed or number is None:
                continue
            reason = (
                f"pod {pod} holds {id_}, which is no {resource} any more; "
                "its containers may fail: delete the pod to let go of it"
            )
            self._leaving.keep(Device(Card(id_, number, present=False), resource, (reason,)), now)

    def _lists(
        self, holders: Holders, host: HostFacts, now: float, pulse: int
    ) -> tuple[DeviceList, ...]:
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
            checked = (self._unless_just_reused(device, by_resource, now) for device in ordered)
            checked = (self._renamed.unless_held(device, holders, now) for device in checked)
            offered = tuple(_unless_held_elsewhere(device, holders) for device in checked)
            lists.append(DeviceList(resource, offered, host, pulse))
        self._renamed.forget_others(
            {device.identity for gpu in self._gpus.values() for device in _devices(gpu.believed)}
        )
        return tuple(lists)

    def _unless_just_reused(
        self, device: Device, by_resource: Mapping[str, Mapping[str, Device]], now: float
    ) -> Device:
        """The device; Unhealthy while it is too early to know whether a pod got its id otherwise."""
        physical_id = device.card.physical_id
        if physical_id is None or not device.healthy or not device.card.present:
            return device
        if now - self._gpus[physical_id].candidate_since >= SPLIT_SETTLE:
            return device
        for resource, devices in by_resource.items():
            if resource != device.resource and device.id in devices:
                return device.because(
                    f"{device.id} was a {resource} a moment ago: "
                    "it is offered once it is clear that no pod has got it as such"
                )
        return device

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
        yield from self._leaving.devices(now)
        for gpu in self._gpus.values():
            if not gpu.present:
                gone = tuple(attrs.evolve(card, present=False) for card in gpu.believed)
                yield from _devices(gone)
        for gpu in self._gpus.values():
            if gpu.candidate:
                reason = _describe_unsettled(gpu.candidate)
                for device in _devices(gpu.believed):
                    yield device.because(reason)
        for gpu in self._gpus.values():
            if gpu.present and not gpu.candidate:
                yield from _devices(gpu.believed)


def _unless_held_elsewhere(device: Device, holders: Holders) -> Device:
    """The device; Unhealthy while a pod holds its id under another resource."""
    for resource in RESOURCE_OF_SPLIT.values():
        pod = holders.get((resource, device.id))
        if pod is not None and resource != device.resource and device.card.present:
            return device.because(
                f"pod {pod} still holds {device.id} as a {resource}: "
                "it returns to service once that pod is deleted"
            )
    return device


def _library_says(cards: Cards, library: LibraryRound | None, since: float) -> bool | None:
    """Whether the library confirms this split; None where it has said nothing of it since then."""
    if library is None or library.at < since:
        return None
    readings = [library.readings.get(card.number) for card in cards]
    modes = {(each.svi_current, each.svi_pending) for each in readings if each is not None}
    if not modes or any(current is None for current, _ in modes):
        return None
    if any(current != split_of(cards) for current, _ in modes):
        return False
    return (None not in readings and modes == {(split_of(cards), split_of(cards))}) or None


def _devices(cards: Cards) -> list[Device]:
    if not cards:
        return []
    resource = RESOURCE_OF_SPLIT[split_of(cards)]
    return [Device(card, resource, instance=instance) for instance, card in enumerate(cards)]


def _describe_unsettled(seen: Cards) -> str:
    gpu = name_of_gpu(seen[0])
    if seen[0].split is not None and seen[0].split not in RESOURCE_OF_SPLIT:
        return f"{gpu} is split into {seen[0].split}: there is no resource for that"
    kind, command = ("group", vendor.LSPCI_DRIVERS) if seen[0].is_group else ("card", "brsmi gpu")
    there = f"1 {kind} is" if len(seen) == 1 else f"{len(seen)} {kind}s are"
    return (
        f"{gpu} is being split anew and has not settled, {there} there; "
        f"if it stays so, see `{command}` on the node"
    )
