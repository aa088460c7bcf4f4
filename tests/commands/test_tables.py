"""Tables are plain in a pipe, and in a terminal each verdict has its colour."""

import os
import pty
import sys

import pytest

from biren_plugin.commands.tables import Row, print_cards, print_table

HEADINGS = ("CARD", "HEALTH")
END = Row(("end", "end"))
ROWS = [Row(("card_0", "Healthy")), Row(("card_1", "Unhealthy: [bold]gone[/bold]"))]


def test_columns_are_aligned_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADINGS, ROWS)
    assert capsys.readouterr().out == (
        "CARD    HEALTH\ncard_0  Healthy\ncard_1  Unhealthy: [bold]gone[/bold]\n"
    )


def test_health_is_in_colour_in_a_terminal_and_text_is_not_markup(
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
        shown = ""
        while "gone" not in shown:  # written line by line
            shown += reader.read(10_000).decode()
    assert "\x1b[32mHealthy" in shown
    assert "\x1b[1;31mUnhealthy: [bold]gone[/bold]" in shown


def test_notes_are_printed_below_their_row_without_padding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "its device node is missing: " + "look " * 40
    print_table(HEADINGS, [Row(("card_0", "Unhealthy"), [long]), Row(("card_10", "Healthy"))])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "CARD     HEALTH", "card_0   Unhealthy", f"    {long}", "card_10  Healthy",
    ]  # fmt: skip


@pytest.mark.parametrize(("columns", "shown"), [(80, True), (30, False)])
def test_a_narrow_terminal_leaves_out_droppable_columns(
    monkeypatch: pytest.MonkeyPatch, columns: int, *, shown: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    theirs, ours = pty.openpty()
    with os.fdopen(ours, "w") as terminal, os.fdopen(theirs, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stdout", terminal)
        row = Row(("card_0", "32 GT/s x16", "/dev/biren/card_0", "Healthy"))
        print_table(("CARD", "LINK", "DEVICE NODE", "HEALTH"), [row], ("LINK", "DEVICE NODE"))
        terminal.flush()
        printed = ""
        while "Healthy" not in printed:  # written line by line
            printed += reader.read(10_000).decode()
    assert ("/dev/biren/card_0" in printed) is shown
    assert "Healthy" in printed


def test_a_note_that_several_cards_share_comes_once_below_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        Row((f"card_{n}", "Unhealthy"), ["no driver", f"hot {n}"][: 1 + n % 2]) for n in (10, 2, 3)
    ]
    print_cards(HEADINGS, rows)
    assert capsys.readouterr().out == (
        "CARD     HEALTH\ncard_10  Unhealthy\ncard_2   Unhealthy\ncard_3   Unhealthy\n    hot 3\n"
        "card_2, card_3, card_10 (3): no driver\n"
    )


def test_a_long_last_cell_goes_on_below_itself_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    theirs, ours = pty.openpty()
    with os.fdopen(ours, "w") as terminal, os.fdopen(theirs, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stdout", terminal)
        seen = "there is no /var/lib/kubelet/pods; is it mounted?"
        print_table(("CHECK", "SEEN"), [Row(("pods", seen), ["what to do: mount it"]), END])
        terminal.flush()
        shown = ""
        while "end" not in shown:
            shown += reader.read(10_000).decode()
    assert shown.split("\r\n")[1:5] == [
        "pods   there is no",
        "       /var/lib/kubelet/pods; is it",
        "       mounted?",
        "    what to do: mount it",
    ]


def test_control_characters_and_bytes_that_are_not_utf8_are_shown_as_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(HEADINGS, [Row(("a\x1b[31m\nb", "\udcff"), ["x\ry é"])])
    lines = capsys.readouterr().out.splitlines()
    print_cards(HEADINGS, [Row((name, "Healthy"), ["x\ry"]) for name in ("card_0", "card_1")])
    assert capsys.readouterr().out.splitlines()[-1].endswith(": x\\ry")
    assert lines[1:] == ["a\\x1b[31m\\nb  \\udcff", "    x\\ry é"]


@pytest.mark.parametrize("count", [1, 3, 4, 1024])
def test_notes_that_differ_by_the_cards_name_come_once_if_they_are_of_more_than_three_cards(
    capsys: pytest.CaptureFixture[str], count: int
) -> None:
    rows = [
        Row((f"card_{n}", "Unhealthy"), [f"function 0:{n} of card_{n} is silent"], (f"0:{n}",))
        for n in range(count)
    ]
    print_cards(HEADINGS, rows)
    lines = capsys.readouterr().out.splitlines()
    if count <= 3:
        assert len(lines) == 1 + 2 * count
    else:
        assert len(lines) == 2 + count
        assert lines[-1] == (
            f"card_0 to card_{count - 1} ({count}): function 0:0 of card_0 is silent "
            "(and likewise the others)"
        )
