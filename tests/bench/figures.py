"""What a figure is, and the table of them."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Figure:
    """One row: what was measured, and what it should be at most (or at least)."""

    name: str
    unit: str
    value: float
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of `values` lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(name: str, values: Sequence[float], p50: float, p99: float) -> list[Figure]:
    """Median, 99th percentile and maximum of latencies in ms, with the targets of the first two."""
    return [
        Figure(f"{name}, p50", "ms", percentile(values, 0.5), p50),
        Figure(f"{name}, p99", "ms", percentile(values, 0.99), p99),
        Figure(f"{name}, max", "ms", max(values)),
    ]


def print_table(figures: Sequence[Figure]) -> None:
    """For people."""
    marks = {True: "met", False: "MISSED", None: ""}
    print(f"{'what':58} {'figure':>10} {'target':>12}")
    for figure in figures:
        sign = "at least " if figure.at_least else ""
        target = "" if figure.target is None else f"{sign}{figure.target:g}"
        what = f"{figure.name} [{figure.unit}]"
        print(f"{what:58} {figure.value:10.2f} {target:>12} {marks[figure.met]}".rstrip())


def write_document(figures: Sequence[Figure], file: Path | None) -> None:
    """For programs: one JSON document, to `file` or, as a line, to standard output."""
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": _processor(),
    }
    rows: list[dict[str, Any]] = [attrs.asdict(figure) | {"met": figure.met} for figure in figures]
    document = json.dumps({"machine": machine, "figures": rows})
    if file is None:
        print(document)
    else:
        file.write_text(document + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
