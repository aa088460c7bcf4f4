"""Cards with the `physical_id` of other cards but a different PCI function: one GPU, or several?

The cards of one GPU share its `physical_id` and its PCI function. If they share only the first, memory
decides: no GPU has clearly more memory than the node's largest. Either way an operator should know.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from biren_plugin.core.inventory.gpu_grouping import MEMORY_TOLERANCE, Cards, memory_of
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.sysfs import shorten_names
from biren_plugin.core.parse.vendor import LARGEST_GPU_MEMORY, RESOURCE_OF_SPLIT, TOOL_LIST
from biren_plugin.core.parse.vfio import pci_number

_NAMED: Final = 4
"""Addresses in a sentence."""


def resolve_contradictions(
    groups: Mapping[int, Cards], last_gpu_of: Mapping[str, int] = {}
) -> tuple[dict[int, Cards], list[str]]:
    """Return the cards of each GPU, by `physical_id`, and a sentence for each contradiction.

    A function that counts as its own GPU gets its address as `physical_id`, as with VFIO groups. While
    memory cannot be read, cards stay with the GPU in `last_gpu_of`, by card name.
    """
    contradicting = {gpu: cards for gpu, cards in groups.items() if len(_by_function(cards)) > 1}
    if not contradicting:
        return dict(groups), []
    sound = [memory_of(cards) or 0 for gpu, cards in groups.items() if gpu not in contradicting]
    largest = max(sound, default=0) or LARGEST_GPU_MEMORY
    resolved = {gpu: cards for gpu, cards in groups.items() if gpu not in contradicting}
    sentences = []
    for gpu, cards in contradicting.items():
        functions = _by_function(cards)
        if _are_several(cards, largest, last_gpu_of):
            own = {number: _moved(those, number) for number, those in functions.items()}
            resolved |= own
            if rest := tuple(card for card in cards if _function(card) is None):
                resolved[gpu] = rest
            taken = f"each function is offered as a GPU of its own, {len(own)} in all"
        else:
            resolved[gpu] = cards
            taken = f"they are offered as one GPU split into {len(cards)}"
        addresses = list(dict.fromkeys(card.pci_address for card in cards if card.pci_address))
        more = len(addresses) - _NAMED
        shown = ", ".join(addresses[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        sentences.append(
            f"{shorten_names([card.name for card in cards])} share physical_id {gpu} but not "
            f"their PCI function ({shown}): {taken}; check the driver with `{TOOL_LIST}`"
        )
    return resolved, sentences


def _are_several(cards: Cards, largest: int, last_gpu_of: Mapping[str, int]) -> bool:
    if len(cards) not in RESOURCE_OF_SPLIT:
        return True
    memory = memory_of(cards)
    if memory is None:
        return any(last_gpu_of.get(card.name) == _function(card) for card in cards)
    return memory > largest * (1 + MEMORY_TOLERANCE)


def _by_function(cards: Cards) -> dict[int, Cards]:
    """Return the cards of each PCI function, by its number. A VFIO group's functions are those of its GPU."""
    found: dict[int, Cards] = {}
    for card in cards:
        if (number := _function(card)) is not None and not card.is_group:
            found[number] = (*found.get(number, ()), card)
    return found


def _function(card: Card) -> int | None:
    return pci_number(card.pci_address) if card.pci_address is not None else None


def _moved(cards: Cards, physical_id: int) -> Cards:
    return tuple(attrs.evolve(card, physical_id=physical_id) for card in cards)
