"""Figures for people and for programs: the table, the JSON document, two runs side by side."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.bench.figures import Figure, shown_target


@attrs.frozen
class Run:
    """What one run of the benchmark measured."""

    figures: Sequence[Figure]
    failures: Mapping[str, str] = attrs.field(factory=dict)
    """By group: the error that ended it."""
    seconds: Mapping[str, float] = attrs.field(factory=dict)
    """How long each group took."""
    at: str = ""
    """When it ended, UTC."""
    machine: Mapping[str, Any] = attrs.field(factory=dict)


def print_table(figures: Sequence[Figure], failures: Mapping[str, str] | None = None) -> None:
    """Each row with its target; after them each group that failed, with its error."""
    marks = {True: "met", False: "MISSED", None: ""}
    print(f"{'what':60} {'figure':>18} {'target':>22}")
    for figure in figures:
        sign = "at least " if figure.at_least else ""
        target = (
            "" if figure.target is None else f"{sign}{shown_target(figure.target, figure.unit)}"
        )
        what = figure.title.rpartition(" [")[0]
        line = f"{what:60} {figure.shown:>18} {target:>22} {marks[figure.met]}"
        print(line.rstrip())
    for name, error in (failures or {}).items():
        print(f"{name:60} {'FAILED':>18}: {error}")


def print_comparison(figures: Sequence[Figure], baseline: Sequence[Figure]) -> None:
    """Each row beside what it was: rows of one name, unit and number of cards."""
    before = {figure.title: figure.value for figure in baseline}
    print(f"{'what':62} {'before':>10} {'now':>10} {'ratio':>7}")
    for figure in figures:
        if figure.title in before:
            was = before.pop(figure.title)
            ratio = f"{figure.value / was:7.2f}" if was else f"{'':7}"
            print(f"{figure.title:62} {was:10.2f} {figure.value:10.2f} {ratio}".rstrip())
        else:
            print(f"{figure.title:62} {'':10} {figure.value:10.2f}")
    for title, was in before.items():
        print(f"{title:62} {was:10.2f}")


def write_document(run: Run, file: Path) -> None:
    """One JSON document: when, on which machine, how long, what failed, and all rows."""
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "seconds": run.seconds,
        "failures": run.failures,
        "figures": [attrs.asdict(figure) | {"met": figure.met} for figure in run.figures],
    }
    file.write_text(json.dumps(document, indent=1) + "\n")


def read_document(file: Path) -> Run:
    """The run of a document, by any version of this benchmark."""
    document: dict[str, Any] = json.loads(file.read_text())
    names = attrs.fields_dict(Figure)
    rows: list[dict[str, Any]] = document.pop("figures")
    figures = [Figure(**{key: value for key, value in row.items() if key in names}) for row in rows]
    figures = [attrs.evolve(each, quantiles=tuple(each.quantiles)) for each in figures]
    known = {key: value for key, value in document.items() if key in attrs.fields_dict(Run)}
    return Run(figures, **known)


def machine() -> dict[str, Any]:
    """What figures depend on besides the code; `load` is of the minute before, over all cores."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": _processor(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
