"""Prints the demo: coloured and wrapped lines in a terminal, unchanged lines in a pipe."""

import re
import sys
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_STEP: Final = re.compile(r" *[0-9.]+ ms  ")
"""The beginning of a step's first line."""
_HANGING: Final = 2
"""Columns by which continuation lines are indented further than the first."""
_STYLES: Final = {
    r"Unhealthy.*|WARNING|FAILED.*": "red",
    r"[0-9]+ of [0-9]+ healthy|INFO|Healthy again|recovered|Every step .*": "green",
}


def indent_of(line: str) -> tuple[int, int]:
    """Return the columns before a line's text, and before the text of its continuation lines."""
    if step := _STEP.match(line):
        return step.end(), step.end()
    blanks = len(line) - len(line.lstrip())
    return blanks, blanks + _HANGING if blanks else 0


def print_lines(*lines: str) -> None:
    """Print the lines at once, even if standard output is a pipe."""
    if sys.stdout.isatty():
        for line in lines:
            for part in line.split("\n"):
                _print_styled(_console(), part)
    else:
        print(*lines, sep="\n")
    sys.stdout.flush()


def _print_styled(console: "Console", line: str) -> None:
    from rich.text import Text

    first, further = indent_of(line)
    text = Text(line[first:], style="bold" if _STEP.match(line) else "")
    for pattern, style in _STYLES.items():
        text.highlight_regex(pattern, style)
    wrapped = text.wrap(console, max(console.width - further, 1)) or [Text()]
    for number, piece in enumerate(wrapped):
        beginning = (line[:first], "cyan") if number == 0 else (" " * further, "")
        console.print(Text.assemble(beginning, piece), no_wrap=True, crop=False, highlight=False)


@cache
def _console() -> "Console":
    from rich.console import Console  # not needed for a pipe

    return Console(file=sys.stdout)
