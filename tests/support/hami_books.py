"""What HAMi 2.10's scheduler decides, after `hami-contract`: which list it believes, which cards it takes.

Written from recorded values, apart from the package: it shares no code with the package that it tests.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any

import attrs

Object = dict[str, Any]

EIGHT = (
    '[{"id":"card_0","count":1,"devmem":65024,"type":"Biren","health":true},'
    '{"id":"card_1","index":1,"count":1,"devmem":65024,"type":"Biren","health":true},'
    '{"id":"card_2","index":2,"count":1,"devmem":65024,"type":"Biren","health":true},'
    '{"id":"card_3","index":3,"count":1,"devmem":65024,"type":"Biren","health":true},'
    '{"id":"card_4","index":4,"count":1,"devmem":65024,"type":"Biren","numa":1,"health":true},'
    '{"id":"card_5","index":5,"count":1,"devmem":65024,"type":"Biren","numa":1,"health":true},'
    '{"id":"card_6","index":6,"count":1,"devmem":65024,"type":"Biren","numa":1,"health":true},'
    '{"id":"card_7","index":7,"count":1,"devmem":65024,"type":"Biren","numa":1,"health":true}]'
)
"""A recorded list of 8 cards on 2 NUMA nodes."""


@attrs.frozen
class Wish:
    """How many cards each container of a pod wants."""

    containers: tuple[int, ...]
    init: tuple[int, ...] = ()

    @property
    def in_order(self) -> tuple[int, ...]:
        """Init containers first, as the kubelet admits them and HAMi writes them."""
        return self.init + self.containers


@attrs.define
class Books:
    """One node in the scheduler's memory: it is gone after a restart."""

    cards: list[Object] = attrs.Factory(list)
    """The last list that the scheduler accepted."""

    def take_list(self, text: str) -> None:
        """A list that does not parse or is empty changes nothing."""
        try:
            cards = json.loads(text)
        except ValueError:
            return
        if isinstance(cards, list) and cards:
            self.cards = cards

    def order(self) -> list[str]:
        """The ids in the order in which it takes them."""
        healthy = [
            each for each in self.cards
            if each.get("health") and each.get("count") == 1 and "biren" in each["type"].lower()
        ]  # fmt: skip
        return [each["id"] for each in sorted(healthy, key=lambda each: each.get("numa", 0))][::-1]

    def fit(self, wish: Wish, used: Collection[str]) -> list[list[str]] | None:
        """The cards of each container, init containers first; None if they do not fit."""
        entries: list[list[str]] = []
        for group in (wish.init, wish.containers):
            free = [card for card in self.order() if card not in used]
            if sum(group) > len(free):
                return None
            for number in group:
                entries.append(free[:number])
                free = free[number:]
        return entries


def write(entries: Sequence[Sequence[str]]) -> str:
    """The text of both device annotations."""
    return "".join("".join(f"{card},Biren,0,0:" for card in entry) + ";" for entry in entries)


def read(text: str) -> list[list[str]]:
    """The entries of a device annotation, as the scheduler reads them."""
    return [
        [card.split(",")[0] for card in entry.split(":") if card] for entry in text.split(";")[:-1]
    ]
