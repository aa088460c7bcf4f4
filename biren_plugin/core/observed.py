"""Raw observations of the node, before any conclusion: what the survey starts from."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import attrs

from biren_plugin.core.model import Snapshot
from biren_plugin.core.parse.brml import (
    CardReading,
    CommonAncestor,
    KnownCard,
    LibraryFacts,
    P2PLink,
)
from biren_plugin.core.parse.claim_device import ClaimDevice
from biren_plugin.records import frozen


@frozen
class Holder:
    """The container that holds a device."""

    namespace: str
    pod: str
    container: str = ""
    forgotten: bool = False
    """Whether the kubelet has lost its record of this; the pod still runs."""
    perhaps: bool = False
    """Whether another pod may hold it instead: the kubelet never reported who got it."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


DeviceKey = tuple[str, str]
"""Resource and id."""

Holders = Mapping[DeviceKey, Holder]
"""The container that holds each device."""

NO_HOLDERS: Final[Holders] = {}


@frozen
class ClaimUse:
    """A claim that the kubelet believes prepared by this driver."""

    namespace: str
    name: str
    devices: tuple[ClaimDevice, ...]
    """Those that containers use; a device of a request that no container names is missing."""
    pod: Holder
    """One container that uses it."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Claims = Mapping[str, ClaimUse]
"""The claims that the kubelet believes prepared, by uid."""


class ClaimFile(NamedTuple):
    """The CDI file of a prepared claim."""

    devices: tuple[ClaimDevice, ...]
    """Empty: the file is not a CDI spec."""
    version: tuple[int, int]
    """Its inode and mtime: a file that was written again has another."""


ClaimFiles = Mapping[str, ClaimFile]
"""By uid of the claim."""


@frozen
class ClaimsSeen:
    """What claims hold, and where their files and the kubelet's belief differ."""

    believed: Claims = attrs.Factory(dict)
    files: ClaimFiles = attrs.Factory(dict)
    lost: frozenset[str] = frozenset()
    """Uids of claims that the kubelet believes prepared, and whose files have vanished."""
    stale: frozenset[str] = frozenset()
    """Uids of claims whose files are there, and that the kubelet has not known for long."""
    unprepared: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of claims of listed pods of which the kubelet shows no device."""
    differed_at: float | None = None
    """When `lost` and `stale` were found, in the keeper's clock; None if both are empty."""

    def holder_of(self, device: str) -> str | None:
        """The uid of the claim that holds the pool's `device`; None if none does. Admin access is none."""
        for uid in (self.files.keys() - self.stale) | self.believed.keys():
            found = self.devices_of(uid)
            if any(each.device == device and not each.admin for each in found):
                return uid
        return None

    def devices_of(self, uid: str) -> tuple[ClaimDevice, ...]:
        """The devices of a claim, by its file, else by the kubelet's belief."""
        if uid in self.files and self.files[uid].devices:
            return self.files[uid].devices
        return self.believed[uid].devices if uid in self.believed else ()


NO_CLAIMS: Final = ClaimsSeen()


Pods = frozenset[tuple[str, str]]
"""Namespace and name of each."""


@frozen
class KubeletView:
    """The kubelet's last answer, if it answered."""

    at: float
    """When the request was sent, in seconds of trio's clock."""
    holders: Holders | None = None
    """None: no answer."""
    allocatable: Mapping[str, frozenset[str]] | None = None
    """Ids of the devices that the kubelet considers healthy, by resource; None: no answer."""
    pods: Pods = frozenset()
    """The listed pods, with or without devices."""
    claims: Claims | None = None
    """The claims that the kubelet believes prepared by this driver; None: no answer."""
    unprepared: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of each claim that the kubelet lists without a device."""


RIGHT_AFTER: Final = 0.2
"""Seconds from the first reason to the question: an allocation is recorded after it was answered."""


@frozen
class Doubt:
    """Why the kubelet is asked more often than usual."""

    until: float = -math.inf
    """In seconds of trio's clock."""
    reasons: int = 0
    """How many changes were announced so far; the kubelet is asked `RIGHT_AFTER` each."""
    announced: float = -math.inf
    """When the last of them was, in seconds of trio's clock."""
    waiting: int = 0
    """For how many questions so far somebody waits; each is asked at once."""

    def announcing(self, now: float, asked: float, seconds: float) -> "Doubt":
        """Return the doubt with one more change at `now`, for `seconds`; `asked` is the time of the last question.

        The doubt itself if the question about an earlier change is still to come: under load there are a
        thousand changes a second.
        """
        if self.announced > max(asked, now - RIGHT_AFTER):
            return self
        until = max(self.until, now + seconds)
        return attrs.evolve(self, until=until, reasons=self.reasons + 1, announced=now)


@frozen
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


@frozen
class Observed:
    """The latest value of each source; None if a source has not reported yet."""

    snapshot: Snapshot | None = None
    library: LibraryRound | None = None
    holders: Holders | None = None
    """None: unknown which pod holds what."""
    claims: ClaimsSeen | None = None
    """None: neither the claims' files nor the kubelet have been read."""
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
