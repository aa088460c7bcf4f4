"""Questions for the management library, asked in threads because every call blocks.

A `PatientReads` calls `names` and `read`; its caller sets `cards`, `linked` and `idle` between rounds.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from biren_plugin.core.parse.brml import (
    CardReading,
    CommonAncestor,
    KnownCard,
    LibraryFacts,
    P2PLink,
    ReturnCode,
)
from biren_plugin.core.parse.sysfs import card_number
from biren_plugin.core.parse.vendor import CARD_PREFIX
from biren_plugin.errors import LibraryCallFailed, LibraryMissing, LibraryUnusable

if TYPE_CHECKING:
    from biren_plugin.host.brml_session import Brml

LISTING: Final = "the list of its cards"
"""The name under which `known_cards` is read."""
_LINKS_OF: Final = "the links of "


class Links(NamedTuple):
    """How one card reaches the cards with greater numbers, without the pairs the library did not report."""

    among: Mapping[int, KnownCard]
    """The list of cards that the links were read for."""
    p2p: Mapping[tuple[int, int], P2PLink]
    ancestors: Mapping[tuple[int, int], CommonAncestor]


Answer = CardReading | Links | Mapping[int, KnownCard]


class Library(NamedTuple):
    """A library that answers."""

    brml: "Brml"
    facts: LibraryFacts


class BrmlReader:
    """Opens the library of the host below `root` at the first round, and keeps it open."""

    def __init__(self, root: Path) -> None:
        self.cards: frozenset[str] = frozenset()
        """Names of the cards to read."""
        self.linked: Mapping[int, KnownCard] = {}
        """Cards whose links to each other are to be read."""
        self.idle = True
        """Whether no earlier call is pending: only then may the library be closed."""
        self.library: Library | None = None
        self._root = root
        self._driver_gone = False

    def names(self) -> list[str]:
        """Return the names to read. Raises `LibraryUnusable`."""
        if self._driver_gone and self.idle and self.library is not None:
            self.library.brml.shutdown()  # a library opened with the last driver cannot use a new one
            self.library = None
        if self.library is None:
            self.library = self._open()
            self._driver_gone = False
        rows = [f"{_LINKS_OF}{CARD_PREFIX}{number}" for number in sorted(self.linked)[:-1]]
        return [*sorted(self.cards), LISTING, *rows]

    def read(self, name: str) -> Answer | None:
        """Return one answer; None if there is none, as for a card that the library does not know."""
        if (library := self.library) is None:
            return None  # closed in the meantime
        number = card_number(name.removeprefix(_LINKS_OF))
        try:
            if name == LISTING:
                return library.brml.known_cards()
            if number is None:
                return None
            if name.startswith(_LINKS_OF):
                return self._links_of(number, library.brml)
            return library.brml.read_card(number)
        except LibraryCallFailed as error:
            if name == LISTING and error.code == ReturnCode.DRIVER_NOT_LOADED:
                self._driver_gone = True
            if error.code == ReturnCode.TIMEOUT and number is not None:
                return CardReading(number, timed_out=True)
            return None

    def _links_of(self, number: int, brml: "Brml") -> Links | None:
        among = self.linked
        if number not in among:
            return None  # a late call for an old list of cards
        p2p: dict[tuple[int, int], P2PLink] = {}
        ancestors: dict[tuple[int, int], CommonAncestor] = {}
        for other in among:
            if other <= number:
                continue
            with suppress(LibraryCallFailed):
                if (link := brml.link(number, other)) is not None:
                    p2p[number, other] = link
                if (ancestor := brml.ancestor(number, other)) is not None:
                    ancestors[number, other] = ancestor
        return Links(among, p2p, ancestors)

    def _open(self) -> Library:
        from biren_plugin.host.brml_session import (  # imports ctypes: only once it is needed
            Brml,
            find_library,
        )

        failure: LibraryUnusable = LibraryMissing("there is no management library on this node")
        for path in find_library(self._root):
            try:
                brml = Brml(path)
                brml.init()
                return Library(brml, brml.facts())
            except LibraryMissing:
                continue  # the loader finds none; the vendor's directories may hold one
            except (LibraryUnusable, LibraryCallFailed) as error:
                failure = LibraryUnusable(str(error))
        raise failure
