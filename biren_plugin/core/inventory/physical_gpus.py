"""The physical GPUs of a node: the accepted split of each, and the cards it shows instead."""

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import attrs

from biren_plugin.core.inventory.gpu_grouping import (
    Cards,
    contradicted_by_memory,
    group_by_gpu,
    most_memory,
    name_of_gpu,
    resolve_contradictions,
    same_split,
    split_of,
    with_known_memory,
)
from biren_plugin.core.model import Device
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.splits import RESOURCE_OF_SPLIT
from biren_plugin.records import mutable

APPEAR_SETTLE: Final = 0.9  # two scans, a second apart, that agree
SPLIT_SETTLE: Final = 3.0


@mutable
class _Gpu:
    """One physical GPU."""

    accepted: Cards = ()
    candidate: Cards = ()
    """The cards that it shows now, if they differ from the accepted split."""
    candidate_since: float = 0.0
    changed_at: float = -math.inf
    """When the accepted split was first seen, if it replaced another."""
    present: bool = True


class Resplit(NamedTuple):
    """A GPU whose new split is accepted from now on."""

    before: list[Device]
    after: list[Device]
    certain_at: float
    """The time by which a pod that just got one of `before` must be known."""


class PhysicalGpus:
    """Rules 1 to 4 of `core.inventory.keeper`."""

    def __init__(self) -> None:
        self._gpus: dict[int, _Gpu] = {}
        self._gpu_of: dict[str, int] = {}
        """The GPU by card name, as last read."""
        self._starting = True
        self.unsettled: list[str] = []
        """Sentences about cards that are not offered, or that contradict each other, with the reason."""

    def update(self, seen: Observed, now: float) -> list[Resplit]:
        """Take an observation; return the GPUs whose cards have just been replaced."""
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
                if not gpu.accepted:
                    del self._gpus[physical_id]
            elif same_split(cards, gpu.accepted):
                gpu.accepted = with_known_memory(cards, gpu.accepted)
                gpu.candidate = ()
            elif self._is_settled(gpu, cards, most, seen.library, now):
                before, after = _devices(gpu.accepted), _devices(cards)
                resplits.append(Resplit(before, after, gpu.candidate_since + SPLIT_SETTLE))
                if gpu.accepted:
                    gpu.changed_at = gpu.candidate_since
                gpu.accepted, gpu.candidate = cards, ()
            if gpu.candidate and (gpu.accepted or split_of(gpu.candidate) not in RESOURCE_OF_SPLIT):
                self.unsettled.append(_describe_unsettled(gpu.candidate))
        self._starting = False
        return resplits

    def accepted(self) -> list[Device]:
        """Return the devices of all GPUs, present or not, in their accepted splits."""
        return [device for gpu in self._gpus.values() for device in _devices(gpu.accepted)]

    def devices_by_weight(self) -> Iterator[Device]:
        """Return these devices with their state; of two with one id, the present card comes later."""
        for gpu in self._gpus.values():
            if not gpu.present:
                yield from _devices(
                    tuple(attrs.evolve(card, present=False) for card in gpu.accepted)
                )
        for gpu in self._gpus.values():
            if gpu.candidate:
                reason = _describe_unsettled(gpu.candidate)
                yield from (device.because(reason) for device in _devices(gpu.accepted))
        for gpu in self._gpus.values():
            if gpu.present and not gpu.candidate:
                yield from _devices(gpu.accepted)

    def is_of_accepted(self, card: Card, at: float) -> bool:
        """Return whether the library's reading of that number, made at `at`, is of this accepted card.

        A new split gives names away again.
        """
        gpu = self._gpus.get(card.physical_id) if card.physical_id is not None else None
        return gpu is None or (not gpu.candidate and at >= gpu.changed_at)

    def just_changed(self, physical_id: int, now: float) -> bool:
        """Return whether the GPU changed less than `SPLIT_SETTLE` ago."""
        return now - self._gpus[physical_id].candidate_since < SPLIT_SETTLE

    def _is_settled(
        self, gpu: _Gpu, cards: Cards, most: int, library: LibraryRound | None, now: float
    ) -> bool:
        """Return whether these cards, which differ from the accepted split, are accepted now."""
        if not same_split(cards, gpu.candidate):
            gpu.candidate_since = now
        gpu.candidate = cards
        if split_of(cards) not in RESOURCE_OF_SPLIT:
            return False
        confirmed = _library_confirms(cards, library, gpu.candidate_since)
        if confirmed:
            return True
        if gpu.accepted or confirmed is False or contradicted_by_memory(cards, most):
            settle = SPLIT_SETTLE
        else:
            settle = 0.0 if self._starting else APPEAR_SETTLE
        return now - gpu.candidate_since >= settle


def _library_confirms(cards: Cards, library: LibraryRound | None, since: float) -> bool | None:
    """Return whether the library confirms this split; None if it has not reported it since then."""
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
    """Return resource and id of each card in its GPU's current split, settled or not."""
    groups, _ = resolve_contradictions(group_by_gpu(cards)[0])
    return frozenset(
        (RESOURCE_OF_SPLIT[split_of(group)], card.name)
        for group in groups.values()
        if split_of(group) in RESOURCE_OF_SPLIT
        for card in group
    )


def on_their_gpus(cards: Iterable[Card]) -> list[Card]:
    """Return the cards, by number, each with the `physical_id` of the GPU that it is counted to."""
    groups, strays = group_by_gpu(cards)
    resolved, _ = resolve_contradictions(groups)
    found = [*strays, *(card for group in resolved.values() for card in group)]
    return sorted(found, key=lambda card: card.number)


def _describe_stray(card: Card) -> str:
    why = "; ".join(card.misread) or f"{vendor.GPU_ATTRIBUTE} is missing, empty or unreadable"
    return f"{card.name}: {why}; see {vendor.CLASS_FOLDER}/{card.name}/device"


def _describe_unsettled(seen: Cards) -> str:
    gpu = name_of_gpu(seen[0])
    if seen[0].split is not None and seen[0].split not in RESOURCE_OF_SPLIT:
        return f"{gpu} is split into {seen[0].split}: there is no resource for that"
    kind, command = (
        ("group", vendor.LSPCI_DRIVERS) if seen[0].is_group else ("card", vendor.TOOL_LIST)
    )
    there = f"1 {kind} is" if len(seen) == 1 else f"{len(seen)} {kind}s are"
    return (
        f"{gpu} is being re-split and has not settled, {there} there; "
        f"if it stays so, see `{command}` on the node"
    )
