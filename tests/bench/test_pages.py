"""The pages' tables: written from one run, each figure named, and what stands around them kept."""

import re
from pathlib import Path

import pytest

from tests.bench import pages
from tests.bench.document import Run
from tests.bench.figures import Figure

ROOT = Path(__file__).parents[2]
NODE = {
    "at": "2026-11-28T10:00:00Z",
    "figures": {
        "ms without a card, plain, at rest, SIGTERM": [20, 35],
        "pods lost of 13, plain, SIGTERM, 3 hand-overs": [2],
    },
}
MACHINE = {"cores": 2, "processor": "a processor", "python": "3.11.7", "kernel": "6.1", "load": 0.1}


@pytest.fixture
def run() -> Run:
    """A run in which each figure that a table names is 1 ms, with a target of 2."""
    rows = (pages.MAIN, pages.FLOORS, pages.README, pages.PREFERRED, pages.GROWTH)
    titles = {title for each in rows for _, row in each for title in row}
    titles |= {
        f"{name}, {units} cards"
        for units in (8, 32, 64, 1024)
        for name in ("idle", "idle, wake-ups", "idle, resident memory")
    }
    titles |= {
        f"busy /dev{name}, 64 cards" for name in ("", ", wake-ups", ", nodes made and removed")
    }
    titles |= {
        f"{node}, {way}: {what}"
        for node in ("8 whole GPUs", "halves and quarters")
        for way in ("ours", "first fit", "random")
        for what in ("mean link score of a pair", "pods of 4 in one piece")
    }
    figures = [Figure(title, "ms", 1.0, 2.0) for title in sorted(titles)]
    return Run(
        [*figures, Figure("imports, share of trio", "%", 9.0)], at="2026-11-28", machine=MACHINE
    )


@pytest.mark.parametrize("page", ["docs/figures.md", "README.md"])
def test_each_table_of_a_page_is_written(run: Run, page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"<!-- table: (\S+) -->", text)
    assert named
    assert set(named) <= pages.tables(run, NODE).keys()
    assert text.count("<!-- end -->") == len(named)


def test_what_stands_around_a_table_is_kept() -> None:
    page = "before\n<!-- table: one -->\n| old |\n<!-- end -->\nwhy\n<!-- table: two -->\n<!-- end -->\n"
    filled = pages.fill(page, {"one": "| new |\n"})
    assert filled == page.replace("| old |", "| new |")
    assert pages.fill(filled, {"one": "| new |\n"}) == filled


def test_a_row_has_its_targets_and_says_what_is_missed(run: Run) -> None:
    [imports] = [row for row in pages.tables(run, None)["main"].splitlines() if "imports" in row]
    assert imports == "| of it, imports | 2 ms | 1.0 ms |"
    slow = [
        Figure(each.name, "ms", 3.0, 2.0) if each.name == "imports" else each
        for each in run.figures
    ]
    table = pages.tables(Run(slow, at=run.at, machine=MACHINE), None)["main"]
    assert "| of it, imports | 2 ms | 3.0 ms, **missed** |" in table


def test_a_run_of_a_part_writes_nothing(run: Run) -> None:
    part = [each for each in run.figures if each.name != "imports"]
    with pytest.raises(KeyError, match="imports"):
        pages.tables(Run(part, at=run.at, machine=MACHINE), None)


def test_a_real_nodes_figures_have_their_day_and_their_greatest(run: Run) -> None:
    table = pages.tables(run, NODE)["node"]
    assert "Measured on 2026-11-28, in a run of its own" in table
    assert (
        "| without a card, plain, at rest, SIGTERM | 2 | 30 ms | 28 ms | 35 ms, **missed** |"
        in table
    )
    assert "| pods lost of 13, plain, SIGTERM, 3 hand-overs | 1 | | 2 | 2 |" in table
