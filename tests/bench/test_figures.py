"""Figures: what a median of rounds hides, how growth is shown, what a document returns."""

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench.__main__ import main, measure
from tests.bench.calls import ratio
from tests.bench.document import Run, print_comparison, print_table, read_document, write_document
from tests.bench.figures import Figure, growth, shown, spread
from tests.bench.plots import draw_all
from tests.bench.rounds import rounds

FIGURES = Path(__file__).parents[2] / "docs/figures"
SVG = "{http://www.w3.org/2000/svg}"
SIZE = 12.0
"""Of the plots' font."""
WIDE = 7.0
"""What a letter takes on average in Verdana of that size, the widest of the usual fonts; in DejaVu Sans 6.0."""
QUIET, DISTURBED = [1.0] * 99 + [2.0], [9.0] * 100
SCANS = [Figure("scan", "ms", value, cards=cards) for cards, value in ((8, 1.0), (64, 8.0))]


def test_one_disturbed_round_moves_no_median_and_is_seen_in_the_maximum() -> None:
    p50, p99, most = spread("call", [QUIET, DISTURBED, QUIET], 1.5, 1.5)
    assert (p50.value, p50.met) == (1.0, True)
    assert (p99.value, p99.met) == (2.0, False)
    assert (most.value, most.met) == (9.0, None)
    assert (p50.quantiles[0], p50.quantiles[100]) == (1.0, 9.0)


def test_a_loop_whose_time_is_over_ends_after_its_least_rounds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(rounds(4, 60)) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""
    assert list(rounds(9, -1, least=3)) == [0, 1, 2]
    assert capsys.readouterr().err == " (3 of 9 rounds)"


def test_a_ratio_is_that_of_rounds_taken_in_turn() -> None:
    assert ratio([[2.0], [20.0], [2.0]], [[1.0], [10.0], [1.0]]) == 2.0


def test_a_rate_is_met_from_its_target_on() -> None:
    assert Figure("calls", "calls/s", 3000, 3000, at_least=True).met
    assert not Figure("calls", "calls/s", 2999, 3000, at_least=True).met


def test_growth_compares_the_two_largest_nodes_and_leaves_tails_out() -> None:
    tail = [Figure("call, p99", "ms", value, cards=cards) for cards, value in ((8, 1.0), (64, 2.0))]
    alone = Figure("start", "ms", 1.0, cards=8)
    assert growth([*SCANS, *tail, alone]) == [Figure("scan, 8 to 64 cards", "times", 8.0)]


def test_a_document_gives_back_its_figures(tmp_path: Path) -> None:
    figures = [*spread("call", [QUIET], 1.5, 1.5), *SCANS]
    write_document(Run(figures, {"dra": "no answer"}, {"dra": 1.5}), tmp_path / "figures.json")
    read = read_document(tmp_path / "figures.json")
    assert (read.figures, read.failures, read.seconds) == (
        figures,
        {"dra": "no answer"},
        {"dra": 1.5},
    )


def test_a_group_that_fails_loses_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> list[Figure]:
        raise ValueError("no kubelet")

    run = measure({"first": fail, "second": lambda: SCANS}, ["first", "second"])
    assert run.figures[: len(SCANS)] == SCANS
    print_table(run.figures, run.failures)
    assert re.search(r"first +FAILED: ValueError: no kubelet", capsys.readouterr().out)


def test_a_run_with_a_failed_group_prints_the_others_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> list[Figure]:
        raise subprocess.TimeoutExpired(["a client"], 120)

    monkeypatch.setattr("tests.bench.__main__.measure_commands", fail)
    monkeypatch.setattr("tests.bench.__main__.measure_looks", lambda: SCANS)
    monkeypatch.setattr("sys.argv", ["bench", "--only", "commands", "looks"])
    assert main() == 1
    printed = capsys.readouterr().out
    assert re.search(r"^scan, 64 cards +8\.0 ms$", printed, re.MULTILINE)
    assert re.search(r"^commands +FAILED: TimeoutExpired: .*a client", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4440.0, "ms", "4.4 s"),
        (999.6, "ms", "1.0 s"),
        (250.4, "ms", "250 ms"),
        (23.1, "ms", "23 ms"),
        (0.567, "ms", "0.57 ms"),
        (0.02, "ms", "20 µs"),
        (38.06, "MiB", "38.1 MiB"),
        (5090.0, "calls/s", "5,090 calls/s"),
        (0.0, "calls", "0 calls"),
        (1.234, "times", "1.23 times"),
        (0.2531, "% of a core", "0.25 % of a core"),
        (4.27, "a second", "4.27 a second"),
    ],
)
def test_a_figure_reads_as_people_write_it(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_a_comparison_shows_rows_of_either_run(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(
        [Figure("kept", "ms", 3.0), Figure("new", "ms", 1.0)],
        [Figure("kept", "ms", 2.0), Figure("dropped", "ms", 5.0)],
    )
    rows = [re.split(r"\s{2,}", row) for row in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["kept [ms]", "2.00", "3.00", "1.50"],
        ["new [ms]", "1.00"],
        ["dropped [ms]", "5.00"],
    ]


@pytest.mark.parametrize("file", sorted(FIGURES.glob("*.svg")), ids=lambda file: file.stem)
def test_no_text_of_a_plot_is_cut_off_or_covers_another(file: Path) -> None:
    drawing = ET.parse(file).getroot()
    _, _, width, height = map(float, drawing.get("viewBox", "").split())
    places: list[tuple[float, float, float]] = []
    for each in drawing.iter(f"{SVG}text"):
        x, y, long = float(each.get("x", "")), float(each.get("y", "")), WIDE * len(each.text or "")
        left = x - {"end": long, "middle": long / 2}.get(each.get("text-anchor", ""), 0)
        assert 0 <= left <= width - long, each.text
        assert SIZE <= y <= height - SIZE / 3, each.text
        for other_left, other_right, other_y in places:
            beside = left >= other_right or left + long <= other_left
            assert beside or abs(y - other_y) >= SIZE, each.text
        places.append((left, left + long, y))


def test_plots_are_documents_that_name_every_row(tmp_path: Path) -> None:
    draw_all([*spread("a <call>", [QUIET]), *SCANS], tmp_path)
    texts = {
        file.name: [each.text for each in ET.parse(file).iter() if each.text]
        for file in tmp_path.iterdir()
    }
    assert "scan: 8.0 ms" in texts["growth.svg"]
    assert "a <call>: 1.0 ms" in texts["events.svg"]
