"""The demo's output in a terminal: wrapped to its width, and in colour if wanted."""

import re
import sys

import pytest

from tests.support.pictures import run_in_terminal

PRINT = """
from biren_plugin.simulate.printing import print_lines
print_lines("A node.", "\\n  639.4 ms  card_7 is put back", "            " + "word " * 40 + "last")
print_lines("            card_7 is Unhealthy: its PCI function 0000:0e:00.0 answers 0xFF")
"""


def printed(width: int, **environment: str) -> str:
    return run_in_terminal([sys.executable, "-c", PRINT], width, **environment)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_lines_are_wrapped_to_the_terminal_with_a_hanging_indent(width: int) -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed(width)).splitlines()
    assert max(map(len, lines)) <= width
    first = next(number for number, line in enumerate(lines) if "word" in line)
    last = next(number for number, line in enumerate(lines) if line.endswith("last"))
    assert first < last
    assert re.match(r" {12}word", lines[first])
    assert all(re.match(r" {14}[wl]", line) for line in lines[first + 1 : last + 1])


def test_colours_are_left_out_on_request() -> None:
    assert "\x1b[" in printed(80)
    assert "\x1b[3" not in printed(80, NO_COLOR="1")
