"""Cards that the operator leaves out with `--exclude`, by name, PCI address or UUID.

1. An excluded card still counts for the split of its GPU; it is in no list.
2. One that was listed before (its UUID became known late, or a new split gave it an excluded name) is
   retired in two steps, and not before the pod that holds it has gone.
3. Only the management library knows UUIDs. While one is excluded, a card whose UUID is unknown waits for
   the library, for `UUID_WAIT` at most.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from biren_plugin.core.model import Device, Excluded, Identity
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import CardReading
from biren_plugin.core.parse.card import Card

UUID_WAIT: Final = 10.0
"""Seconds: two rounds of the library."""

_NAME: Final = rf"{vendor.CARD_PREFIX}[0-9]{{1,9}}|/dev/vfio/[0-9]{{1,9}}"
_ADDRESS: Final = r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]"
_UUID: Final = r"[0-9A-Za-z]{2,72}(-[0-9A-Za-z]{1,72}){1,9}"
EXCLUDE_PATTERN: Final = f"{_NAME}|{_ADDRESS}|{_UUID}"
"""A card's name, its PCI address, or its UUID as the library writes it."""


class ExcludedCards:
    """Which of the node's cards the `words` of `--exclude` mean."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._words = {word.lower(): word for word in words}
        self._has_uuid = any(map(is_uuid, words))
        self._uuids: dict[Identity, str] = {}
        """As last read: a library that hangs does not bring a card back."""
        self._waiting_since: dict[Identity, float] = {}
        self._listed: set[tuple[str, str]] = set()
        """Resource and id of the devices that `without` returned last."""
        self._now = 0.0

    def update(
        self, devices: Sequence[Device], readings: Mapping[int, CardReading], now: float
    ) -> list[Excluded]:
        """Those of `devices`, all of the node's, that are excluded at `now`."""
        if not self._words:
            return []
        self._now = now
        for device in devices:
            reading = readings.get(device.card.number)
            if reading is not None and reading.uuid is not None:
                self._uuids[device.identity] = reading.uuid
            self._waiting_since.setdefault(device.identity, now)
        for identity in self._waiting_since.keys() - {each.identity for each in devices}:
            del self._waiting_since[identity]
            self._uuids.pop(identity, None)
        return [Excluded(each, word) for each in devices if (word := self.word_for(each))]

    def word_for(self, device: Device) -> str:
        """The word that excludes the device; empty if none does."""
        if not self._words:
            return ""
        names = [*_names_of(device.card), self._uuids.get(device.identity, "")]
        return next(
            (self._words[name.lower()] for name in names if name.lower() in self._words), ""
        )

    def was_listed(self, device: Device) -> bool:
        """Whether `without` returned a device with that id last."""
        return (device.resource, device.id) in self._listed

    def without(self, devices: Iterable[Device]) -> list[Device]:
        """The devices that are not excluded."""
        if not self._words:
            return list(devices)
        left = [self._unless_unknown(each) for each in devices if not self.word_for(each)]
        self._listed = {(each.resource, each.id) for each in left}
        return left

    def _unless_unknown(self, device: Device) -> Device:
        """The device; Unhealthy while its UUID, which may be excluded, is not known yet."""
        if not self._is_awaited(device):
            return device
        return device.because(
            "--exclude has a UUID, and the management library has not reported the UUID of this card "
            f"yet: it is offered after {UUID_WAIT:g} s at most"
        )

    def unmatched(self, devices: Sequence[Device], cards: Sequence[Card]) -> tuple[str, ...]:
        """A sentence for each word that means none of `devices` and `cards`."""
        # A node without a card waits for its driver, which is another warning.
        if not self._words or not (devices or cards) or any(map(self._is_awaited, devices)):
            return ()
        known = {name.lower() for card in cards for name in _names_of(card)}
        known |= {name.lower() for device in devices for name in _names_of(device.card)}
        known |= {uuid.lower() for uuid in self._uuids.values()}
        return tuple(
            f"--exclude {word}: no card of this node has that {_kind_of(word)}; "
            "see `br-gpu-device-plugin devices`"
            for lower, word in self._words.items()
            if lower not in known
        )

    def _is_awaited(self, device: Device) -> bool:
        if not self._has_uuid or device.card.is_group or device.identity in self._uuids:
            return False
        return self._now - self._waiting_since.get(device.identity, self._now) < UUID_WAIT


def is_uuid(word: str) -> bool:
    """Whether a word of `--exclude` is a UUID."""
    return re.fullmatch(_UUID, word) is not None


def without_uuids(words: Sequence[str]) -> list[str]:
    """The words that a scan without the management library can match."""
    return [word for word in words if not is_uuid(word)]


def _names_of(card: Card) -> list[str]:
    return [card.name, *card.functions, *([card.pci_address] if card.pci_address else [])]


def _kind_of(word: str) -> str:
    if is_uuid(word):
        return "UUID, as far as the management library reports them"
    return "name" if re.fullmatch(_NAME, word) else "PCI address"
