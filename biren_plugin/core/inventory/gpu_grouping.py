"""Which cards belong to one GPU, how many parts it has, and whether two readings show the same split.

The cards of one GPU share its `physical_id` and its PCI function. If they share only the first, memory
decides whether they are one GPU or several: no GPU has clearly more memory than the node's largest.
Either way an operator should know.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from biren_plugin.core.card_names import shorten_names
from biren_plugin.core.parse.card import Card
from biren_plugin.core.parse.pci_addresses import address_of, pci_number
from biren_plugin.core.parse.splits import SPLITS
from biren_plugin.core.parse.vendor import GPU_ATTRIBUTE, LARGEST_GPU_MEMORY, TOOL_LIST

MEMORY_TOLERANCE: Final = 0.1

Cards = tuple[Card, ...]
"""The cards of one GPU, by number: their order distinguishes the instances."""


def group_by_gpu(
    cards: Iterable[Card], last_gpu_of: Mapping[str, int] = {}
) -> tuple[dict[int, Cards], list[Card]]:
    """Return the cards of each physical GPU, by number, and the cards that belong to no GPU.

    A card whose `physical_id` cannot be read belongs to the GPU at its PCI address, if another card has
    it (*assumed*: the instances of a GPU share its address); otherwise it stays with its last GPU
    (`last_gpu_of`, by name), unless that is at another address now: names are given away again.
    """
    cards = sorted(cards, key=lambda card: card.number)
    gpu_at = {
        card.pci_address: card.physical_id
        for card in cards
        if card.pci_address is not None and card.physical_id is not None
    }
    address_of_gpu = {gpu: address for address, gpu in gpu_at.items()}
    groups: dict[int, Cards] = {}
    strays = []
    for card in cards:
        physical_id = card.physical_id
        if physical_id is None:
            physical_id = gpu_at.get(card.pci_address or "", last_gpu_of.get(card.name))
            if physical_id is not None and card.pci_address is not None:
                known = address_of_gpu.setdefault(physical_id, card.pci_address)
                physical_id = physical_id if known == card.pci_address else None
            card = attrs.evolve(card, physical_id=physical_id)
        if physical_id is None:
            strays.append(card)
        else:
            groups[physical_id] = (*groups.get(physical_id, ()), card)
    return groups, strays


def name_of_gpu(card: Card) -> str:
    """Return `GPU 3` by the driver's number, or `GPU 0000:3b:00.0` by the address.

    If sysfs does not show which GPU it is: `the GPU of card_3`.
    """
    if card.physical_id is None:
        return f"the GPU of {card.name}"
    by_address = card.is_group or pci_number(card.pci_address or "") == card.physical_id
    return f"GPU {address_of(card.physical_id) if by_address else card.physical_id}"


def names_of_card(card: Card) -> tuple[str | None, ...]:
    """Return everything by which a text may call the card."""
    return card.path, card.name, name_of_gpu(card), card.pci_address


def split_of(cards: Cards) -> int:
    """Return the number of parts of a GPU with these cards: the host's value, or else their number."""
    return cards[0].split or len(cards)


def same_split(seen: Cards, known: Cards) -> bool:
    """Return whether both are the same split: a lone quarter has the whole GPU's name, but not its memory."""
    return len(seen) == len(known) and all(
        now.name == then.name
        and now.split == then.split
        and _about_the_same(now.memory, then.memory)
        for now, then in zip(seen, known, strict=True)
    )


def _about_the_same(one: int | None, other: int | None) -> bool:
    """Compare with a tolerance: a new split changes a card's memory by at least half, a driver by little."""
    if one is None or other is None:
        return True
    return abs(one - other) <= max(one, other) * MEMORY_TOLERANCE


def with_known_memory(seen: Cards, known: Cards) -> Cards:
    """`seen`, with unread memory filled in from `known`."""
    return tuple(
        now if now.memory is not None else attrs.evolve(now, memory=then.memory)
        for now, then in zip(seen, known, strict=True)
    )


def most_memory(groups: Mapping[int, Cards]) -> int:
    """Return the bytes that the cards of the node's largest GPU hold; 0 if unknown."""
    return max((memory_of(cards) or 0 for cards in groups.values()), default=0)


def contradicted_by_memory(cards: Cards, most: int) -> bool:
    """Return whether a GPU's cards hold clearly less than `most`, another GPU's memory: cards are missing."""
    own = memory_of(cards)
    return own is not None and own < most * (1 - MEMORY_TOLERANCE)


def memory_of(cards: Cards) -> int | None:
    """Return the bytes that the cards hold together; None if one of them is unknown."""
    sizes = [card.memory for card in cards]
    return None if None in sizes else sum(size for size in sizes if size is not None)


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
            f"{shorten_names([card.name for card in cards])} share {GPU_ATTRIBUTE} {gpu} but not "
            f"their PCI function ({shown}): {taken}; check the driver with `{TOOL_LIST}`"
        )
    return resolved, sentences


def _are_several(cards: Cards, largest: int, last_gpu_of: Mapping[str, int]) -> bool:
    if len(cards) not in SPLITS:
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
