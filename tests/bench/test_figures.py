"""Figures: what a median of rounds hides, how growth is shown, what a document returns."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench.__main__ import measure
from tests.bench.calls import ratio
from tests.bench.document import Run, print_comparison, print_table, read_document, write_document
from tests.bench.figures import Figure, growth, shown, spread
from tests.bench.plots import draw_all

QUIET, DISTURBED = [1.0] * 99 + [2.0], [9.0] * 100
SCANS = [Figure("scan", "ms", value, cards=cards) for cards, value in ((8, 1.0), (64, 8.0))]


def test_one_disturbed_round_moves_no_median_and_is_seen_in_the_maximum() -> None:
    p50, p99, most = spread("call", [QUIET, DISTURBED, QUIET], 1.5, 1.5)
    assert (p50.value, p50.met) == (1.0, True)
    assert (p99.value, p99.met) == (2.0, False)
    assert (most.value, most.met) == (9.0, None)
    assert (p50.quantiles[0], p50.quantiles[100]) == (1.0, 9.0)


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


def test_plots_are_documents_that_name_every_row(tmp_path: Path) -> None:
    draw_all([*spread("a <call>", [QUIET]), *SCANS], tmp_path)
    texts = {
        file.name: [each.text for each in ET.parse(file).iter() if each.text]
        for file in tmp_path.iterdir()
    }
    assert "scan: 8.0 ms" in texts["growth.svg"]
    assert "a <call>: 1.0 ms" in texts["events.svg"]
