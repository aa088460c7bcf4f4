"""Figures of a session: measured by tests, printed at its end."""

from collections import defaultdict
from typing import Final

_FIGURES: Final[dict[str, list[float]]] = defaultdict(list)


def note(name: str, value: float) -> None:
    """Adds a measured value, in the unit that the name says."""
    _FIGURES[name].append(value)


def lines() -> list[str]:
    """A line for each figure: how often it was measured, least, median and greatest."""
    told = []
    for name, values in _FIGURES.items():
        ordered = sorted(values)
        least, median, greatest = ordered[0], ordered[len(ordered) // 2], ordered[-1]
        told.append(f"{name}: {len(values)} times, {least:.0f} / {median:.0f} / {greatest:.0f}")
    return told
