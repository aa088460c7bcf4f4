"""Writes the tables of docs/figures.md and README.md, and the plots, from the document of one run.

`nox -s figures -- RUN.json` writes, with `--node NODE.json` for what a real kubelet saw (from
`nox -s cluster -- --json NODE.json`). A table stands between `<!-- table: NAME -->` and
`<!-- end -->`; the text outside stays as it is.
"""

import argparse
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.document import Run, read_document
from tests.bench.figures import Figure, joined, shown, shown_target
from tests.bench.plots import draw_all

_ROOT: Final = Path(__file__).parents[2]
_PAGES: Final = (_ROOT / "docs/figures.md", _ROOT / "README.md")
_TABLE: Final = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_QUANTILES: Final = (", p50", ", p99")

Rows = Sequence[tuple[str, Sequence[str]]]
"""The text of each row, and the titles of its figures."""


def _both(title: str) -> list[str]:
    """The titles of a latency's median and tail."""
    name, comma, cards = title.partition(" | ")
    return [f"{name}{each}{comma and f', {cards}'}" for each in _QUANTILES]


MAIN: Final[Rows] = [
    ("process start to registered and listed, 8 cards", ["process start to registered and listed"]),
    ("of it, imports", ["imports"]),
    ("`status`; `devices`: wall time over `python -c pass`", ["`status` over python -c pass", "`devices` over python -c pass"]),
    ("Allocate, one at a time, p50 / p99", _both("Allocate, one at a time")),
    ("Allocate, 64 at once", ["Allocate, 64 at once"]),
    ("Allocate, 64 at once, p99", ["Allocate, 64 at once, p99"]),
    ("Allocate / an echo on the same wire", ["Allocate / echo on ours"]),
    ("Allocate / the same bytes from grpcio's C server", ["Allocate / echo on grpcio"]),
    ("device node pulled to the kubelet's list, p50 / p99", _both("device node gone to list")),
    ("PCI function silent to list, p50 / p99", _both("PCI function silent to list")),
    ("the library reports critical to list, p99", ["library says critical to list, p99"]),
    ("kubelet restart to complete lists, 3 resources, p50 / p99", _both("kubelet restart to complete lists")),
    ("hand-over to another daemon: the kubelet without a list, p99, plain", ["hand-over to list, p99"]),
    ("the same with CDI", ["hand-over to list, CDI, p99"]),
    ("without inotify: device node pulled to list, p99", ["device node gone to list, without inotify, p99"]),
    ("without inotify: kubelet restart to complete lists, p99", ["kubelet restart to complete lists, without inotify, p99"]),
    ("resident memory, registered", ["resident memory, registered"]),
    ("resident memory, after 16,000 calls", ["resident memory, after the load"]),
    ("peak memory with a pod-resources answer of 15 MiB", ["peak memory, a pod-resources answer of 15 MiB"]),
    ("refused calls: the log's reader has stopped / it reads", ["refused Allocate, log not read / read"]),
    ("256 cards: list built and sent", ["list built and sent, 256 cards"]),
    ("256 cards: scan", ["scan, 256 cards"]),
    ("`--hami`: device node pulled to HAMi's annotation, p99", ["device node gone to HAMi's list, p99"]),
    ("`--hami`: Allocate to HAMi's lock released, p99", ["Allocate to HAMi's lock released, p99"]),
    ("`--hami`: memory", ["memory of --hami"]),
    ("DRA: Prepare without the API server's own work, p99", ["Prepare, own part, p99"]),
    ("DRA: device node pulled to taint stored, p99", ["device node gone to taint stored, p99"]),
    ("DRA: slices deleted to back, p99", ["slices deleted to back, p99"]),
    ("DRA: resident memory, registered", ["resident memory with DRA"]),
    ("DRA: idle, of a core", ["idle with DRA"]),
]  # fmt: skip
FLOORS: Final[Rows] = [
    ("`python -c pass`", ["floor: python -c pass"]),
    ("`import trio, purerpc`, and what generated protobuf modules import", ["floor: import trio, purerpc, protobuf"]),
    ("`import cyclopts`, over `python -c pass`", ["floor: import cyclopts over python -c pass"]),
    ("an echo on the daemon's wire, p50 / p99", _both("floor: echo on ours")),
    ("an echo on stock purerpc, over TCP, p50 / p99", _both("floor: echo on purerpc")),
    ("an echo on grpcio's C server, p50 / p99", _both("floor: echo on grpcio")),
    ("a loop of trio that wakes once a second, of a core", ["floor: a loop that wakes once a second"]),
]  # fmt: skip
README: Final[Rows] = [
    ("process start to registered and listed", ["process start to registered and listed"]),
    ("device node pulled to the kubelet's list, p99", ["device node gone to list, p99"]),
    ("kubelet restart to complete lists, p99", ["kubelet restart to complete lists, p99"]),
    ("memory; processor when idle", ["resident memory, registered", "idle, 8 cards"]),
]
PREFERRED: Final[Rows] = [
    *(
        (f"{cards // 2} of {cards} whole GPUs, p50 / p99", _both(f"half of all preferred | {cards} cards"))
        for cards in (8, 24, 32, 128)
    ),
    ("16 of 32 quarters, p50 / p99", _both("16 of 32 quarters preferred")),
    ("memory grown by 1,000 choices of 64 of 128", ["memory grown by 1,000 preferences, 64 of 128"]),
]  # fmt: skip
_SIZES: Final = (8, 64, 256)
GROWTH: Final[Rows] = [
    (text, [f"{name}, {cards} cards" for cards in _SIZES])
    for text, name in (
        ("start to registered and listed", "start"),
        ("scan of all cards", "scan"),
        ("verdicts on all cards", "judgement"),
        ("list built and sent", "list built and sent"),
        ("device node pulled to list", "node pulled to list"),
        ("Allocate, p50", "Allocate, p50"),
        ("resident memory", "resident memory"),
    )
]
_UNITS: Final = (8, 32, 64, 1024)
_WAYS: Final = ("ours", "first fit", "random")
_REAL: Final[Mapping[str, float]] = {
    "ms without a card, plain, at rest, SIGTERM": 30,
    "ms without a card, CDI, at rest, SIGTERM": 40,
    "ms from the kubelet's socket to all cards": 80,
}
"""Targets in ms of what a session on a real node measures."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="nox -s figures --", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN.json")
    parser.add_argument("--node", type=Path, metavar="NODE.json")
    arguments = parser.parse_args()
    run = read_document(arguments.run)
    if run.failures:
        parser.error(f"{arguments.run}: these groups failed: {', '.join(run.failures)}")
    node = None if arguments.node is None else json.loads(arguments.node.read_text())
    try:
        written = tables(run, node)
    except KeyError as error:
        parser.error(f"{arguments.run}: no figure {error}: run all of `nox -s bench`")
    for page in _PAGES:
        page.write_text(fill(page.read_text(), written))
    draw_all(run.figures, _ROOT / "docs/figures")


def fill(page: str, written: Mapping[str, str]) -> str:
    """The page with these tables; a table of another name stays."""
    return _TABLE.sub(
        lambda found: f"{found[1]}{written[found[2]]}{found[3]}" if found[2] in written else found[0],
        page,
    )  # fmt: skip


def tables(run: Run, node: Mapping[str, Any] | None) -> dict[str, str]:
    """Each table's text by its name. Raises KeyError if the run lacks a figure."""
    figures = {figure.title.rpartition(" [")[0]: figure for figure in run.figures}
    written = {
        "run": _sources(run),
        "main": _beside_targets(MAIN, figures),
        "floors": _seen(FLOORS, figures),
        "readme": f"{_seen(README, figures)}\nMeasured on {run.at[:10]}.\n",
        "preferred": _beside_targets(PREFERRED, figures),
        "idle": _idle(figures),
        "growth": _table(
            ["cards on the node", *map(str, _SIZES)],
            [[text, *(figures[each].shown for each in titles)] for text, titles in GROWTH],
        ),
        "imports": _table(
            ["package", "of the time that imports take"],
            [
                [f"`{title.removeprefix('imports, share of ')}`", figure.shown]
                for title, figure in figures.items()
                if title.startswith("imports, share of ")
            ],
        ),
        "choice": _choice(figures),
    }
    if node is not None:
        written["node"] = _real_node(node)
    return written


def _sources(run: Run) -> str:
    machine, seconds = run.machine, sum(run.seconds.values())
    return (
        f"One run, {run.at[:10]}, in {seconds / 60:.0f} minutes: {machine['cores']} cores "
        f"({machine['processor']}), Python {machine['python']}, Linux {machine['kernel']}; load in its last "
        f"minute {machine['load']}.\n"
    )


def _beside_targets(rows: Rows, figures: Mapping[str, Figure]) -> str:
    return _table(
        ["what", "target", "seen"],
        [[text, *_target_and_value([figures[each] for each in titles])] for text, titles in rows],
    )


def _target_and_value(figures: Sequence[Figure]) -> tuple[str, str]:
    targets = [
        f"{'at least ' if each.at_least else ''}{shown_target(each.target, each.unit)}"
        for each in figures
        if each.target is not None
    ]
    missed = any(each.met is False for each in figures)
    return joined(targets), joined([each.shown for each in figures]) + (
        ", **missed**" if missed else ""
    )


def _seen(rows: Rows, figures: Mapping[str, Figure]) -> str:
    return _table(
        ["what", "seen"],
        [[text, joined([figures[each].shown for each in titles])] for text, titles in rows],
    )


def _idle(figures: Mapping[str, Figure]) -> str:
    rows = []
    for units in _UNITS:
        idle, memory = (
            figures[f"idle, {units} cards"],
            figures[f"idle, resident memory, {units} cards"],
        )
        wakeups = figures[f"idle, wake-ups, {units} cards"]
        rows.append(
            [f"{units:,} units", *_target_and_value([idle]), f"{wakeups.value:.1f}", memory.shown]
        )
    busy, wakeups = figures["busy /dev, 64 cards"], figures["busy /dev, wake-ups, 64 cards"]
    made = figures["busy /dev, nodes made and removed, 64 cards"]
    text = f"64 units, and {made.value:.0f} other devices a second that come and go in `/dev`"
    rows.append([text, *_target_and_value([busy]), f"{wakeups.value:.1f}", ""])
    return _table(["node", "target", "idle", "wake-ups a second", "resident"], rows)


def _choice(figures: Mapping[str, Figure]) -> str:
    rows = [
        [node, what, *(figures[f"{name}, {way}: {what}"].shown for way in _WAYS)]
        for node, name in (
            ("8 whole GPUs", "8 whole GPUs"),
            ("4 GPUs in halves, 4 in quarters", "halves and quarters"),
        )
        for what in ("mean link score of a pair", "pods of 4 in one piece")
    ]
    return _table(["node, in groups of four GPUs", "", *_WAYS], rows)


def _real_node(node: Mapping[str, Any]) -> str:
    rows = []
    for name, values in node["figures"].items():
        target = _REAL.get(name)
        missed = ", **missed**" if target is not None and max(values) > target else ""
        middle, most = (
            shown(each, "ms") if name.startswith("ms ") else f"{each:g}"
            for each in (statistics.median(values), max(values))
        )
        rows.append([
            name.removeprefix("ms "), str(len(values)),
            "" if target is None else shown_target(target, "ms"), middle, f"{most}{missed}",
        ])  # fmt: skip
    head = ["what", "times", "target", "median", "greatest"]
    return f"Measured on {node['at'][:10]}, in a run of its own.\n\n{_table(head, rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    main()
