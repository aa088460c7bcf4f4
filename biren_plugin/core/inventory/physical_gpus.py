"""The physical GPUs of a node: how each is believed to be split, and what it shows instead."""

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from biren_plugin.core.inventory.contradictions import resolve_contradictions
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
from biren_plugin.core.model import Device
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.vendor import RESOURCE_OF_SPLIT

APPEAR_SETTLE: Final = 0.9  # two scans, a second apart, that agree
SPLIT_SETTLE: Final = 3.0


@attrs.define
class _Gpu:
    """What is known of one physical GPU."""

    believed: Cards = ()
    candidate: Cards = ()
    """The cards that it shows now, where they differ from what is believed."""
    candidate_since: float = 0.0
    present: bool = True


@attrs.frozen
class Resplit:
    """A GPU whose new split is believed from now on."""

    before: list[Device]
    after: list[Device]
    certain_at: float
    """When a pod that just got one of `before` must have become known."""


class PhysicalGpus:
    """Rules 1 to 4 of `core.inventory.keeper`."""

    def __init__(self) -> None:
        self._gpus: dict[int, _Gpu] = {}
        self._gpu_of: dict[str, int] = {}
        """By card name, as last read."""
        self._starting = True
        self.unsettled: list[str] = []
        """Sentences about cards that nothing is announced from, or that contradict each other, and why."""

    def update(self, seen: Observed, now: float) -> list[Resplit]:
        """Takes in what was read; returns the GPUs whose cards have just been replaced."""
        assert seen.snapshot is not None
        groups, strays = group_by_gpu(seen.snapshot.cards, self._gpu_of)
        groups, contradictions = resolve_contradictions(groups, self._gpu_of)
        self._gpu_of = {card.name: gpu for gpu, cards in groups.items() for card in cards}
        self.unsettled = [*contradictions, *map(_describe_stray, strays)]
        most = most_memory(groups)
        resplits = []
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
            elif self._is_settled(gpu, cards, most, seen.library, now):
                before, after = _devices(gpu.believed), _devices(cards)
                resplits.append(Resplit(before, after, gpu.candidate_since + SPLIT_SETTLE))
                gpu.believed, gpu.candidate = cards, ()
            if gpu.candidate and (gpu.believed or split_of(gpu.candidate) not in RESOURCE_OF_SPLIT):
                self.unsettled.append(_describe_unsettled(gpu.candidate))
        self._starting = False
        return resplits

    def believed(self) -> list[Device]:
        """The devices of all GPUs, present or not, in the split that is believed."""
        return [device for gpu in self._gpus.values() for device in _devices(gpu.believed)]

    def devices_by_weight(self) -> Iterator[Device]:
        """The same with their state; what a reused id belongs to comes later: a card that is there."""
        for gpu in self._gpus.values():
            if not gpu.present:
                yield from _devices(
                    tuple(attrs.evolve(card, present=False) for card in gpu.believed)
                )
        for gpu in self._gpus.values():
            if gpu.candidate:
                reason = _describe_unsettled(gpu.candidate)
                yield from (device.because(reason) for device in _devices(gpu.believed))
        for gpu in self._gpus.values():
            if gpu.present and not gpu.candidate:
                yield from _devices(gpu.believed)

    def just_changed(self, physical_id: int, now: float) -> bool:
        """Whether the GPU began to look different less than `SPLIT_SETTLE` ago."""
        return now - self._gpus[physical_id].candidate_since < SPLIT_SETTLE

    def _is_settled(
        self, gpu: _Gpu, cards: Cards, most: int, library: LibraryRound | None, now: float
    ) -> bool:
        """Whether these cards, which differ from what is believed, are believed now."""
        if not same_split(cards, gpu.candidate):
            gpu.candidate_since = now
        gpu.candidate = cards
        if split_of(cards) not in RESOURCE_OF_SPLIT:
            return False
        confirmed = _library_confirms(cards, library, gpu.candidate_since)
        if confirmed:
            return True
        if gpu.believed or confirmed is False or contradicted_by_memory(cards, most):
            settle = SPLIT_SETTLE
        else:
            settle = 0.0 if self._starting else APPEAR_SETTLE
        return now - gpu.candidate_since >= settle


def _library_confirms(cards: Cards, library: LibraryRound | None, since: float) -> bool | None:
    """Whether the library confirms this split; None where it has reported nothing of it since then."""
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


def shown_devices(cards: Iterable[Card]) -> frozenset[tuple[str, str]]:
    """Resource and id of each card, as its GPU looks at this moment, settled or not."""
    groups, _ = resolve_contradictions(group_by_gpu(cards)[0])
    return frozenset(
        (RESOURCE_OF_SPLIT[split_of(group)], card.name)
        for group in groups.values()
        if split_of(group) in RESOURCE_OF_SPLIT
        for card in group
    )


def on_their_gpus(cards: Iterable[Card]) -> list[Card]:
    """The cards, by number, each with the `physical_id` of the GPU that it is taken to belong to."""
    groups, strays = group_by_gpu(cards)
    resolved, _ = resolve_contradictions(groups)
    found = [*strays, *(card for group in resolved.values() for card in group)]
    return sorted(found, key=lambda card: card.number)


def _describe_stray(card: Card) -> str:
    why = "; ".join(card.misread) or "physical_id cannot be read"
    return f"{card.name}: {why}; see {vendor.CLASS_FOLDER}/{card.name}/device"


def _describe_unsettled(seen: Cards) -> str:
    gpu = name_of_gpu(seen[0])
    if seen[0].split is not None and seen[0].split not in RESOURCE_OF_SPLIT:
        return f"{gpu} is split into {seen[0].split}: there is no resource for that"
    kind, command = ("group", vendor.LSPCI_DRIVERS) if seen[0].is_group else ("card", "brsmi gpu")
    there = f"1 {kind} is" if len(seen) == 1 else f"{len(seen)} {kind}s are"
    return (
        f"{gpu} is being re-split and has not settled, {there} there; "
        f"if it stays so, see `{command}` on the node"
    )
