"""Figures of a session: tests measure them; they are printed at its end, and written to a file for the docs."""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

_FIGURES: Final[dict[str, list[float]]] = defaultdict(list)


def note(name: str, value: float) -> None:
    """Adds a measured value, in the unit that the name says."""
    _FIGURES[name].append(value)


def as_lines() -> list[str]:
    """A line for each figure: the number of values, the least, the median and the greatest."""
    lines = []
    for name, values in _FIGURES.items():
        ordered = sorted(values)
        least, median, greatest = ordered[0], ordered[len(ordered) // 2], ordered[-1]
        lines.append(f"{name}: {len(values)} times, {least:.0f} / {median:.0f} / {greatest:.0f}")
    return lines


def write(file: Path) -> None:
    """All values of each figure, with the day, as one JSON document."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.write_text(json.dumps({"at": at, "figures": _FIGURES}, indent=1) + "\n")
