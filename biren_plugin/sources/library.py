"""Reads every card through the management library, and posts the readings: a source of the survey.

1. The library is optional. If it is missing or unusable, that is logged once, its readings are dropped,
   and it is tried again after `RETRY`, or when the node shows other cards.
2. Its calls may never return, so they run in the threads of a `PatientReads`: a card whose calls hang
   delays other cards only briefly.
3. Links are read once for each list of cards, since there are many pairs.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from biren_plugin.board import Board
from biren_plugin.core.card_names import by_number
from biren_plugin.core.observed import LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, KnownCard, LibraryFacts
from biren_plugin.core.parse.sysfs import card_number
from biren_plugin.errors import HostUnreadable, LibraryMissing, LibraryUnusable
from biren_plugin.host.brml_reader import LISTING, Answer, BrmlReader, Links
from biren_plugin.host.patient_reads import PATIENCE, PatientReads, Round
from biren_plugin.notice import INFO, WARNING, Notice, say

RETRY: Final = 60.0
"""Seconds until an unusable library is tried again."""
SOONER: Final = 1.0
"""Seconds to the next round while a call is pending, which may turn out to hang, or while the links of
a new list of cards are unknown."""


async def query_library(
    root: Path,
    observed: Board[Observed],
    *,
    interval: float,
    on_turn: Callable[[float], None] = lambda _seconds: None,
) -> None:
    """Post a round every `interval` seconds, and sooner when the node shows other cards.

    `on_turn` gets the seconds that each round took.
    """
    reader = BrmlReader(root)
    patient_reads = PatientReads[Answer](reader.names, reader.read, "the management library")
    latest: LibraryRound | None = None
    notice = Notice()
    silent: frozenset[str] = frozenset()
    while (observed.latest or Observed()).snapshot is None:
        # Without a turn the liveness probe would end the daemon, though there is nothing to read.
        on_turn(0.0)
        with trio.move_on_after(interval):
            await observed.wait_for(lambda seen: seen.snapshot is not None)
    while True:
        began = trio.current_time()
        next_round = began + interval
        scanned = observed.latest or Observed()
        reader.cards = scanned.card_names
        try:
            look = await patient_reads.look()
        except (HostUnreadable, LibraryUnusable) as error:
            level = INFO if isinstance(error, LibraryMissing) else WARNING
            text = f"{error}. Health checks go on without the library"
            notice.begin("library_left_out", text, level, reason=str(error))
            next_round = began + RETRY
            latest, reader.linked = None, {}
        else:
            assert reader.library is not None
            facts = reader.library.facts
            if latest is None:
                _log_facts(facts)
            notice.forget()
            silent = _log_hanging(look, silent)
            last, latest = latest, _round(began, facts, look, latest)
            is_new_list = last is None or latest.known != last.known
            reader.linked = latest.known if is_new_list else {}
            reader.idle = not look.pending
            if reader.linked or look.pending - look.hung:
                next_round = min(next_round, trio.current_time() + SOONER)
        before = observed.latest or Observed()
        if before.library != latest:
            observed.post(attrs.evolve(before, library=latest))
        on_turn(trio.current_time() - began)
        with trio.move_on_at(next_round):
            await observed.wait_for(partial(_shows_others, scanned))


def _shows_others(before: Observed, seen: Observed) -> bool:
    """Return whether the host shows cards of other names; an unchanged snapshot is the same object."""
    return seen.snapshot is not before.snapshot and seen.card_names != before.card_names


def _round(
    began: float, facts: LibraryFacts, look: Round[Answer], last: LibraryRound | None
) -> LibraryRound:
    """Return the round of one read; pending cards keep their last reading."""
    last = last or LibraryRound(began, facts)
    readings = {each.number: each for each in look.values.values() if isinstance(each, CardReading)}
    pending, hung = _cards(look.pending), _cards(look.hung)
    awaited = {number: last.readings[number] for number in pending & last.readings.keys()}
    known = _known(look, last)
    same = known == last.known
    links = dict(last.links) if same else {}
    ancestors = dict(last.ancestors) if same else {}
    for row in look.values.values():
        if isinstance(row, Links) and row.among == known:
            links |= row.p2p
            ancestors |= row.ancestors
    return LibraryRound(began, facts, known, {**awaited, **readings}, hung, links, ancestors)


def _known(look: Round[Answer], last: LibraryRound) -> Mapping[int, KnownCard]:
    """Return the cards that the library lists; none if the call failed, since an old list would accuse cards."""
    listed = look.values.get(LISTING)
    if isinstance(listed, Mapping):
        return listed
    return last.known if LISTING in look.pending - look.hung else {}


def _cards(names: frozenset[str]) -> frozenset[int]:
    return frozenset(number for name in names if (number := card_number(name)) is not None)


def _log_facts(facts: LibraryFacts) -> None:
    library, driver = facts.library_version or "unknown", facts.driver_version or "unknown"
    text = f"management library {facts.path}, version {library}, driver {driver}"
    say("library_found", text, path=facts.path, version=facts.library_version)
    if facts.lacking:
        text = (
            f"management library {facts.path} is too old for {', '.join(facts.lacking)}: "
            "health checks go on without them"
        )
        say("library_lacks", text, WARNING, path=facts.path, functions=facts.lacking)


def _log_hanging(look: Round[Answer], silent: frozenset[str]) -> frozenset[str]:
    """Log which calls hang, and return them; hanging cards are left out, as they get a verdict."""
    hung = frozenset(name for name in look.hung if card_number(name) is None)
    for name in sorted(hung - silent, key=by_number):
        text = (
            f"the management library has not answered about {name} for {PATIENCE:g} s: "
            "health checks go on without it; see `dmesg` on the node"
        )
        say("library_hangs", text, WARNING, what=name)
    for name in sorted(silent - look.pending, key=by_number):
        say("library_answers", f"the management library answers about {name} again", what=name)
    return hung | (silent & look.pending)
