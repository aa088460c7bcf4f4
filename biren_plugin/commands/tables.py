"""The one table printer: colours and as many columns as fit in a terminal, plain lines in a pipe.

A long text is not a cell but a note below its row, so that columns stay narrow.
"""

import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import Final

import attrs

from biren_plugin.core.card_names import APART, alike, by_number, shorten_names
from biren_plugin.errors import printable
from biren_plugin.records import frozen

_STYLES: Final = {
    "Healthy": "green",
    "yes": "green",
    "ok": "green",
    "Unhealthy": "bold red",
    "NO": "bold red",
    "failure": "bold red",
    "warning": "yellow",
    "unknown": "dim",
}
"""The colour of a cell by its first word."""
_GAP: Final = "  "
_INDENT: Final = 4
"""Columns by which a note is indented."""
_NARROWEST: Final = 20
"""Columns of text that are tried, however narrow the terminal is."""


@frozen
class Row:
    """One line of cells, and notes about it."""

    cells: Sequence[str]
    notes: Sequence[str] = ()
    """Sentences, each on a line of its own below the cells."""
    names: Sequence[str | None] = ()
    """What the notes may call it, besides the first cell: notes that differ only by that are shared."""


def print_table(
    headings: Sequence[str], rows: Sequence[Row], droppable: Collection[str] = ()
) -> None:
    """Print the rows to standard output.

    In a terminal that is too narrow, columns with a heading in `droppable` are left out, the last one
    first; a pipe gets all columns. The last column is not padded.
    """
    is_terminal = sys.stdout.isatty()
    rows = [Row([*map(printable, row.cells)], [*map(printable, row.notes)]) for row in rows]
    shown = list(range(len(headings)))
    widths = [
        max(map(len, column)) for column in zip(headings, *(row.cells for row in rows), strict=True)
    ]
    if is_terminal:
        room = shutil.get_terminal_size().columns
        for place in reversed([at for at in shown if headings[at] in droppable]):
            if sum(widths[at] for at in shown) + len(_GAP) * (len(shown) - 1) <= room:
                break
            shown.remove(place)
    lines = [
        [(row[at] if at == shown[-1] else row[at].ljust(widths[at])) for at in shown]
        for row in (headings, *(row.cells for row in rows))
    ]
    notes = [(), *(row.notes for row in rows)]
    if is_terminal:
        _print_styled(lines, notes)
        return
    for line, below in zip(lines, notes, strict=True):
        print(_GAP.join(line).rstrip())
        for note in below:
            print(f"{' ' * _INDENT}{note}")


def print_line(text: str) -> None:
    """Print one line to standard output, whatever names of files or texts of others it holds."""
    print(printable(text))


def print_cards(
    headings: Sequence[str], rows: Sequence[Row], droppable: Collection[str] = ()
) -> None:
    """Prints a table of cards; a note that several share comes once, below it, with their names.

    So does a note of many cards that differs only by what it calls the card. The first column has the names.
    """
    notes = [
        ((row, note), (row.cells[0], *row.names), note)
        for row in rows
        for note in dict.fromkeys(row.notes)
    ]
    shared = {text: members for members, text in alike(notes, APART) if len(members) > 1}
    hidden = {(id(row), note) for members in shared.values() for row, note in members}
    rest = [
        attrs.evolve(row, notes=[note for note in row.notes if (id(row), note) not in hidden])
        for row in rows
    ]
    print_table(headings, rest, droppable)
    for text, members in shared.items():
        names = sorted((row.cells[0] for row, _ in members), key=by_number)
        print_line(f"{shorten_names(names)}: {text}")


def _print_styled(lines: Sequence[Sequence[str]], notes: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # takes 35 ms, which a pipe does not need
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    for number, (line, below) in enumerate(zip(lines, notes, strict=True)):
        # As Text: rich would interpret brackets in a node's texts as mark-up.
        before = len(_GAP.join([*line[:-1], ""]))
        cells = [*line[:-1], _wrapped(line[-1], before, console.width)]
        shown = Text(_GAP).join(
            Text(cell, style="bold" if number == 0 else _style(cell)) for cell in cells
        )
        shown.rstrip()
        console.print(shown, overflow="fold")
        for note in below:
            text = _wrapped(note, _INDENT, console.width)
            console.print(Text(f"{' ' * _INDENT}{text}"), overflow="fold")


def _wrapped(text: str, indent: int, width: int) -> str:
    """The text in lines that begin at column `indent`; words that fit, such as paths, stay whole."""
    room = max(width - indent, _NARROWEST)
    lines = textwrap.wrap(text, room, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines or [text])


def _style(cell: str) -> str:
    return _STYLES.get(cell.strip().partition(":")[0], "")
