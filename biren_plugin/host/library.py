"""Asks the management library about every card, and posts what it said: a source of the survey.

The library is optional, and its calls may never return: they are made in the threads of a `Lookout`,
so that a card whose calls hang costs no other card more than a moment.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.library import CardReading, KnownCard, LibraryFacts
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.sysfs import card_number
from biren_plugin.errors import (
    HostUnreadable,
    LibraryCallFailed,
    LibraryMissing,
    LibraryUnusable,
)
from biren_plugin.host.lookout import Lookout, Round

if TYPE_CHECKING:
    from biren_plugin.host.brml import Brml

log = logging.getLogger(__name__)

RETRY: Final = 60.0
"""Seconds after which a library is looked for again, where there is none or it cannot be used."""
_LISTING: Final = "the library's own list"
"""What stands for `known_cards` among the names that are read."""
_Answer = CardReading | Mapping[int, KnownCard]


@attrs.frozen
class _Library:
    """A library that answers."""

    brml: "Brml"
    facts: LibraryFacts


class LibraryReader:
    """What a `Lookout` reads: the library is opened at first, then each card, then the list.

    `cards` are node ids that the next look asks about; whoever looks sets them.
    """

    def __init__(self, root: Path) -> None:
        self.cards: frozenset[str] = frozenset()
        self.library: _Library | None = None
        self._root = root

    def names(self) -> list[str]:
        """What to ask. Blocks; raises `LibraryUnusable` and `LibraryCallFailed`."""
        if self.library is None:
            self.library = self._open()
        return [*sorted(self.cards), _LISTING]

    def read(self, name: str) -> _Answer | None:
        """One answer; None where the library does not know the card. Blocks."""
        assert self.library is not None
        try:
            if name == _LISTING:
                return self.library.brml.known_cards()
            number = card_number(name)
            return self.library.brml.read_card(number) if number is not None else None
        except LibraryCallFailed:
            return None

    def _open(self) -> _Library:
        from biren_plugin.host.brml import Brml, find_library  # ctypes: not before it is needed

        failure: LibraryUnusable = LibraryMissing("there is no management library on this node")
        for path in find_library(self._root):
            try:
                brml = Brml(path)
                brml.init()
                return _Library(brml, brml.facts())
            except (LibraryUnusable, LibraryCallFailed) as error:
                if path.startswith("/"):  # the loader's failure only says that it knows none
                    failure = LibraryUnusable(str(error))
        raise failure


async def query_library(
    root: Path,
    observed: Board[Observed],
    *,
    interval: float,
    turned: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Posts a round every `interval` seconds, and sooner when the node shows other cards.

    `turned` is told how long each round took. Without a library, or with one that cannot be used, that is said once, and tried again later.
    """
    reader = LibraryReader(root)
    lookout = Lookout[_Answer](reader.names, reader.read, "the management library")
    latest: LibraryRound | None = None
    trouble = ""
    while True:
        began = trio.current_time()
        wait = interval
        reader.cards = cards = (observed.latest or Observed()).card_names
        try:
            look = await lookout.look()
        except (HostUnreadable, LibraryUnusable) as error:
            if str(error) != trouble:
                level = logging.INFO if isinstance(error, LibraryMissing) else logging.WARNING
                log.log(
                    level, "%s: its part of the health checks is left out", error,
                    extra={"event": "library_left_out", "reason": str(error)},
                )  # fmt: skip
            trouble, wait = str(error), RETRY
        else:
            assert reader.library is not None
            facts = reader.library.facts
            if latest is None or trouble:
                _say_which(facts)
            trouble = ""
            latest = _round(began, facts, look, latest)
            observed.post(attrs.evolve(observed.latest or Observed(), library=latest))
        turned(trio.current_time() - began)
        with trio.move_on_at(began + wait):
            await observed.wait_for(lambda seen, cards=cards: seen.card_names != cards)  # type: ignore[misc]


def _round(
    began: float, facts: LibraryFacts, look: Round[_Answer], last: LibraryRound | None
) -> LibraryRound:
    """What one look brought; the list of known cards is the last one while a new one is awaited."""
    readings = {each.number: each for each in look.values.values() if isinstance(each, CardReading)}
    known = look.values.get(_LISTING)
    if not isinstance(known, Mapping):
        known = last.known if last is not None else {}
    pending, hung = (
        frozenset(number for name in names if (number := card_number(name)) is not None)
        for names in (look.pending, look.hung)
    )
    before = last.readings if last is not None else {}
    awaited = {number: before[number] for number in pending & before.keys()}
    return LibraryRound(began, facts, known, {**awaited, **readings}, hung)


def _say_which(facts: LibraryFacts) -> None:
    log.info(
        "management library %s, version %s, driver %s",
        facts.path, facts.library_version or "unknown", facts.driver_version or "unknown",
        extra={"event": "library_found", "path": facts.path, "version": facts.library_version},
    )  # fmt: skip
    if facts.lacking:
        log.warning(
            "that library is too old for %s: what they tell is left out",
            ", ".join(facts.lacking),
            extra={"event": "library_lacks", "path": facts.path, "functions": facts.lacking},
        )
