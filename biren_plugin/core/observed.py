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
    """The kubelet's last answer, if it answered."""

    at: float
    """When the request was sent, in seconds of trio's clock."""
    holders: Holders | None = None
    """None: no answer."""
    allocatable: Mapping[str, frozenset[str]] | None = None
    """Ids of the devices that the kubelet considers healthy, by resource; None: no answer."""
    pods: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of each listed pod, with or without devices."""


@attrs.frozen
class LibraryRound:
    """What the management library reported in one round."""

    at: float
    """When the round began, in seconds of the clock that the survey runs on."""
    facts: LibraryFacts
    known: Mapping[int, KnownCard] = attrs.Factory(dict)
    """The cards that the library lists, by node id: the 3 of `card_3`."""
    readings: Mapping[int, CardReading] = attrs.Factory(dict)
    """By node id, without cards that could not be read."""
    hung: frozenset[int] = frozenset()
    """Node ids whose calls do not return."""
    links: Mapping[tuple[int, int], P2PLink] = attrs.Factory(dict)
    """How two cards reach each other beside PCIe, by their node ids, the lower one first; a pair that
    the library reports nothing about is left out."""
    ancestors: Mapping[tuple[int, int], CommonAncestor] = attrs.Factory(dict)
    """The closest common ancestor of two cards; keys as in `links`."""


@attrs.frozen
class Observed:
    """The latest value of each source; None if a source has not reported yet."""

    snapshot: Snapshot | None = None
    library: LibraryRound | None = None
    holders: Holders | None = None
    """None: unknown which pod holds what."""
    pulse: int = 0
    """The number of heartbeats."""

    @property
    def driver_version(self) -> str | None:
        """Return `1.12.0`, from the first source that reports it; None if unknown."""
        if self.snapshot is not None and self.snapshot.driver_version is not None:
            return self.snapshot.driver_version
        return self.library.facts.driver_version if self.library is not None else None

    @property
    def card_names(self) -> frozenset[str]:
        """Return the names of the cards that the host shows now."""
        cards = self.snapshot.cards if self.snapshot is not None else ()
        return frozenset(card.name for card in cards)
