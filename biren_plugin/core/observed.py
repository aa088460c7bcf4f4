"""Raw observations of the node, before any conclusion: what the survey starts from."""

from collections.abc import Mapping
from typing import Final

import attrs

from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse.brml import (
    CardReading,
    CommonAncestor,
    KnownCard,
    LibraryFacts,
    P2PLink,
)


@attrs.frozen
class Holder:
    """The container that holds a device."""

    namespace: str
    pod: str
    container: str = ""
    forgotten: bool = False
    """Whether the kubelet has lost its record of this; the pod still runs."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


Holders = Mapping[tuple[str, str], Holder]
"""The container that holds each device, by resource and id."""

NO_HOLDERS: Final[Holders] = {}


@attrs.frozen
class KubeletView:
    """What the kubelet answered, or that it did not."""

    at: float
    """When the question was asked, in seconds of trio's clock."""
    holders: Holders | None = None
    """None: no answer."""
    allocatable: Mapping[str, frozenset[str]] | None = None
    """Ids of the devices that it believes healthy, by resource; None: no answer."""
    pods: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of each pod that it lists, whatever that holds."""


@attrs.frozen
class LibraryRound:
    """What the management library reported in one round."""

    at: float
    """When the round began, in seconds of the clock that the survey runs on."""
    facts: LibraryFacts
    known: Mapping[int, KnownCard] = attrs.Factory(dict)
    """The cards that the library lists, by node id: the 3 of `card_3`."""
    readings: Mapping[int, CardReading] = attrs.Factory(dict)
    """By node id; a card that could not be asked is left out."""
    hung: frozenset[int] = frozenset()
    """Node ids whose calls do not come back."""
    links: Mapping[tuple[int, int], P2PLink] = attrs.Factory(dict)
    """How two cards reach each other beside PCIe, by their node ids, the lower one first; a pair that
    the library reports nothing about is left out."""
    ancestors: Mapping[tuple[int, int], CommonAncestor] = attrs.Factory(dict)
    """Where the ways to two cards part; keys as in `links`."""


@attrs.frozen
class Observed:
    """The latest of each source; None where a source has not reported yet."""

    snapshot: Snapshot | None = None
    library: LibraryRound | None = None
    holders: Holders | None = None
    """None: unknown which pod holds what."""
    pulse: int = 0
    """Counts the heartbeats."""

    @property
    def driver_version(self) -> str | None:
        """`1.12.0`, from the first source that reports it; None if none does."""
        if self.snapshot is not None and self.snapshot.driver_version is not None:
            return self.snapshot.driver_version
        return self.library.facts.driver_version if self.library is not None else None

    @property
    def card_names(self) -> frozenset[str]:
        """The cards that the host shows now."""
        cards = self.snapshot.cards if self.snapshot is not None else ()
        return frozenset(card.name for card in cards)
