"""How cards are named in texts: in which order, many in a row, and faults of many that differ only by the names."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

APART: Final = 3
"""Number of cards of which each is shown with its own text, though the texts differ only by the cards' names."""
_LONGEST_NUMBER: Final = 20
"""Digits of a name that count: Python refuses to read a number with thousands of them."""
_RUN: Final = 4
"""From this number on, names with consecutive numbers are written as a range."""


def by_number(name: str) -> tuple[int, str]:
    """Return a key that sorts card_2 before card_10. Takes any text: a caller may ask for a card that does not exist."""
    digits = "".join(filter(str.isdecimal, name))
    return int(digits[:_LONGEST_NUMBER] or 0), name


def shorten_names(names: Iterable[str]) -> str:
    """Return `card_0, card_2 (2)` or `card_0 to card_7 (8)`, in the given order."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _is_next(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    shown = [f"{run[0]} to {run[-1]}" if len(run) >= _RUN else ", ".join(run) for run in runs]
    count = sum(map(len, runs))
    return ", ".join(shown) + (f" ({count})" if count > 1 else "")


def _is_next(first: str, second: str) -> bool:
    one, two = by_number(first)[0], by_number(second)[0]
    return two == one + 1 and first.removesuffix(str(one)) == second.removesuffix(str(two))


def alike(
    texts: Iterable[tuple[T, Iterable[str | None], str]], apart: int = 1
) -> Iterator[tuple[list[T], str]]:
    """Yield things whose texts are the same, or differ only by their own names, with the first one's text.

    `texts` has each thing with its names, of which some may be unknown, and its text. Up to `apart` things
    with different texts stay apart.
    """
    patterns: dict[str, str] = {}
    groups: dict[str, dict[str, list[T]]] = {}
    for thing, names, text in texts:
        if text not in patterns:  # the same text may name several things
            patterns[text] = _without(names, text)
        groups.setdefault(patterns[text], {}).setdefault(text, []).append(thing)
    for by_text in groups.values():
        members = [thing for things in by_text.values() for thing in things]
        if len(by_text) == 1 or len(members) <= apart:
            yield from ((things, text) for text, things in by_text.items())
        else:
            yield members, f"{next(iter(by_text))} (and likewise the others)"


def _without(names: Iterable[str | None], text: str) -> str:
    for name in names:
        if name and name in text:  # patterns for a thousand cards take 0.1 s to compile
            text = re.sub(rf"{re.escape(name)}(?!\w)", "*", text)
    return text
