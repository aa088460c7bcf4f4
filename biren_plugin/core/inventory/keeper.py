"""Turns observations into the inventory: splits settle, cards are retired.

1. The cards with one `physical_id` are one GPU; their number is its split (`SPLITS`).
2. A GPU's split is accepted once its cards have stayed the same for long enough: at once when the
   daemon starts, after `APPEAR_SETTLE` for a GPU that appears, after `SPLIT_SETTLE` for a known GPU
   that changed or one that contradicts the node's other GPUs or the management library; at once if the
   library reports that no split is pending. Any other number of cards is never accepted.
3. While a GPU differs from its accepted split, its devices are Unhealthy: a pod must not get a card that
   is about to become another one.
4. A GPU that vanishes stays listed, with its cards not `present`: it may return.
5. Cards that a new split replaced are retired in two steps (`removal_delay`), and not before the pod that
   holds one has gone. Until then, a reused `card_N` is not offered under another resource. If the split
   was accepted at once, `card_N` waits for at least `SPLIT_SETTLE`: a pod may just have got it under the
   old split, and the kubelet must be asked first. A card that was only renamed waits in the same way for
   the pod that holds it under its former name (`held_cards`).
6. A card that only the management library knows is listed as Unhealthy.
7. A card that the operator excluded is in no list (`excluded_cards`).
8. A resource without devices keeps an empty list for `EMPTY_LINGER`, and is then removed.
9. A card that a claim still holds, on a node that offered its cards through Dynamic Resource Allocation
   before, is Unhealthy until the claim is released.

Times are seconds of any clock that only goes forward.
"""

from collections.abc import Mapping, Sequence

from biren_plugin.core.inventory.excluded_cards import ExcludedCards
from biren_plugin.core.inventory.gpu_grouping import name_of_gpu
from biren_plugin.core.inventory.held_cards import (
    RenamedCards,
    held_and_gone,
    unless_claimed,
    unless_held_elsewhere,
    unless_held_unnoticed,
)
from biren_plugin.core.inventory.library_additions import LibraryOnly
from biren_plugin.core.inventory.physical_gpus import PhysicalGpus, Resplit
from biren_plugin.core.inventory.removal_delay import EmptyResources, RetiringDevices
from biren_plugin.core.model import Device, DeviceList, Excluded, Inventory, Snapshot
from biren_plugin.core.observed import (
    NO_CLAIMS,
    NO_HOLDERS,
    ClaimsSeen,
    Holders,
    LibraryRound,
    Observed,
)
from biren_plugin.core.parse.brml import CardReading
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT


class InventoryKeeper:
    """Takes one observation after the other, and returns the inventory after each.

    With `claims_count`, a card that a claim holds is Unhealthy: the node offers its cards another way.
    """

    def __init__(self, exclude: Sequence[str] = (), *, claims_count: bool = False) -> None:
        self._claims_count = claims_count
        self._gpus = PhysicalGpus()
        self._excluded = ExcludedCards(exclude)
        self._library_only = LibraryOnly()
        self._renamed = RenamedCards()
        self._retiring = RetiringDevices()
        self._empty = EmptyResources()

    def update(self, seen: Observed, now: float) -> Inventory:
        """Return the inventory at `now`; `seen` must have a snapshot."""
        snapshot = seen.snapshot
        assert snapshot is not None
        holders = seen.holders or NO_HOLDERS
        for resplit in self._gpus.update(seen, now):
            self._retire(resplit, holders, now)
        accepted = self._gpus.accepted()
        self._renamed.forget_others({device.identity for device in accepted})
        numbers = {card.number for card in snapshot.cards}
        numbers.update(device.card.number for device in accepted)
        library_only, without_split = self._library_only.update(seen.library, numbers, now)
        devices = [*accepted, *library_only]
        excluded = self._excluded.update(devices, self._readings_of(devices, seen.library), now)
        for each in excluded:
            self._retire_excluded(each, holders, now)
        listed = {(device.resource, device.id) for device in accepted}
        offered = [each for each in library_only if not self._excluded.word_for(each)]
        for device in (*offered, *held_and_gone(listed, holders)):
            self._retiring.keep(device, now)
        return Inventory(
            self._lists(holders, self._claims(seen), snapshot, now, seen.pulse),
            (*self._gpus.unsettled, *without_split, *snapshot.left_out),
            found=len(snapshot.cards),
            excluded=tuple(sorted(excluded, key=lambda each: each.device.card.number)),
            unmatched=self._excluded.unmatched(devices, snapshot.cards),
            host=snapshot.host,
            driver_loaded=snapshot.driver_loaded,
            shows_groups=snapshot.shows_groups,
        )

    def _readings_of(
        self, devices: Sequence[Device], library: LibraryRound | None
    ) -> dict[int, CardReading]:
        """Return the readings of these very cards, by number."""
        if library is None:
            return {}
        return {
            each.card.number: library.readings[each.card.number]
            for each in devices
            if each.card.number in library.readings
            and self._gpus.is_of_accepted(each.card, library.at)
        }

    def _retire(self, resplit: Resplit, holders: Holders, now: float) -> None:
        self._renamed.note(resplit.before, resplit.after, holders, resplit.certain_at)
        staying = {(device.resource, device.id) for device in resplit.after}
        for device in resplit.before:
            hidden = self._excluded.word_for(device) and not self._excluded.was_listed(device)
            if (device.resource, device.id) not in staying and not hidden:
                reason = f"replaced by a new split of {name_of_gpu(device.card)}"
                self._retiring.keep(device.because(reason), now)

    def _retire_excluded(self, excluded: Excluded, holders: Holders, now: float) -> None:
        """A list that it was on, or a pod that holds it, keeps an excluded device listed for a while."""
        device = excluded.device
        reason = f"excluded by --exclude {excluded.word}"
        if (pod := holders.get((device.resource, device.id))) is not None:
            reason = f"{reason}; it leaves the list once pod {pod}, which holds it, has gone"
        elif not self._excluded.was_listed(device):
            return
        self._retiring.keep(device.because(reason), now)

    def _claims(self, seen: Observed) -> ClaimsSeen:
        return seen.claims if self._claims_count and seen.claims is not None else NO_CLAIMS

    def _lists(
        self, holders: Holders, claims: ClaimsSeen, snapshot: Snapshot, now: float, pulse: int
    ) -> tuple[DeviceList, ...]:
        by_resource: dict[str, dict[str, Device]] = {}
        own = self._excluded.without(self._gpus.devices_by_weight())
        # Of two devices with one id the later counts: a reused id belongs to the card that is present.
        for device in (*self._retiring.devices(now), *own):
            by_resource.setdefault(device.resource, {})[device.id] = device
        lists = []
        for resource in RESOURCE_OF_SPLIT.values():
            devices = by_resource.get(resource, {})
            if not self._empty.is_listed(resource, has_devices=bool(devices), now=now):
                continue
            ordered = sorted(devices.values(), key=lambda device: device.card.number)
            checked = (self._unless_just_reused(device, by_resource, now) for device in ordered)
            checked = (self._renamed.unless_held(device, holders, now) for device in checked)
            checked = (unless_held_unnoticed(device, holders) for device in checked)
            checked = (unless_claimed(device, claims) for device in checked)
            offered = tuple(unless_held_elsewhere(device, holders) for device in checked)
            lists.append(DeviceList(resource, offered, snapshot.host, pulse))
        return tuple(lists)

    def _unless_just_reused(
        self, device: Device, by_resource: Mapping[str, Mapping[str, Device]], now: float
    ) -> Device:
        """Return the device; Unhealthy while a pod may have got its id under another resource unnoticed."""
        physical_id = device.card.physical_id
        if physical_id is None or not device.healthy or not device.card.present:
            return device
        if not self._gpus.just_changed(physical_id, now):
            return device
        for resource, devices in by_resource.items():
            if resource != device.resource and device.id in devices:
                return device.because(
                    f"{device.id} was a {resource} a moment ago; "
                    "it is offered once the kubelet confirms that no pod holds it as such"
                )
        return device
