"""Figures for people and for programs: the table, the JSON document, two runs side by side."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.bench.figures import Figure


def print_table(figures: Sequence[Figure]) -> None:
    """Each row with its target."""
    marks = {True: "met", False: "MISSED", None: ""}
    print(f"{'what':62} {'figure':>10} {'target':>14}")
    for figure in figures:
        sign = "at least " if figure.at_least else ""
        target = "" if figure.target is None else f"{sign}{figure.target:g}"
        line = f"{figure.title:62} {figure.value:10.2f} {target:>14} {marks[figure.met]}"
        print(line.rstrip())


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


def write_document(figures: Sequence[Figure], file: Path) -> None:
    """One JSON document: when, on which machine, and all rows."""
    rows = [attrs.asdict(figure) | {"met": figure.met} for figure in figures]
    document = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine()}
    file.write_text(json.dumps(document | {"figures": rows}, indent=1) + "\n")


def read_document(file: Path) -> list[Figure]:
    """The rows of a document."""
    rows: list[dict[str, Any]] = json.loads(file.read_text())["figures"]
    names = attrs.fields_dict(Figure)
    figures = [Figure(**{key: value for key, value in row.items() if key in names}) for row in rows]
    return [attrs.evolve(figure, quantiles=tuple(figure.quantiles)) for figure in figures]


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
