"""Tables are plain in a pipe, and in a terminal each cell that tells a verdict has its colour."""

import os
import pty
import sys

import pytest

from biren_plugin.commands.tables import print_table

HEADINGS = ("CARD", "HEALTH")
ROWS = [("card_0", "Healthy"), ("card_1", "Unhealthy: [bold]gone[/bold]")]


def test_columns_are_aligned_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADINGS, ROWS)
    assert capsys.readouterr().out == (
        "CARD    HEALTH\ncard_0  Healthy\ncard_1  Unhealthy: [bold]gone[/bold]\n"
    )


def test_health_is_in_colour_in_a_terminal_and_text_is_no_markup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    theirs, ours = pty.openpty()
    with os.fdopen(ours, "w") as terminal, os.fdopen(theirs, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stdout", terminal)
        print_table(HEADINGS, ROWS)
        terminal.flush()
        shown = reader.read(10_000).decode()
    assert "\x1b[32mHealthy" in shown
    assert "\x1b[1;31mUnhealthy: [bold]gone[/bold]" in shown
