"""Tables: rich ones in a terminal, aligned columns in a pipe."""

import sys
from collections.abc import Sequence
from typing import Final

_STYLES: Final = {
    "Healthy": "green",
    "Unhealthy": "bold red",
    "ok": "green",
    "warning": "yellow",
    "failure": "bold red",
    "unknown": "dim",
}
"""The colour of a cell by its first word."""


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the rows to standard output; a cell that tells a health or a verdict has its colour."""
    if sys.stdout.isatty():
        _print_rich(headings, rows)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_rich(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD  # 35 ms that a pipe does not need
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")  # a narrow terminal breaks words, and hides none
    for row in rows:
        # As text, or rich would take what a node says in brackets for its own mark-up.
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console(file=sys.stdout).print(table)


def _style(cell: str) -> str:
    return _STYLES.get(cell.partition(":")[0], "")
