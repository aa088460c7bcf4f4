"""What a figure is: one row of the table, measured beside its target, and how people read it."""

import math
import statistics
from collections.abc import Sequence
from typing import Final

import attrs

_TIMES: Final = ("s", "ms", "µs")


@attrs.frozen
class Figure:
    """One row: what was measured, and what it should be at most (or at least)."""

    name: str
    unit: str
    value: float
    target: float | None = None
    at_least: bool = False
    cards: int | None = None
    """How many cards the node has, in a row that exists for several numbers of them."""
    quantiles: tuple[float, ...] = ()
    """Of latencies: the values below which 0, 1, ... 100 % lie."""

    @property
    def title(self) -> str:
        """The title in the table."""
        cards = "" if self.cards is None else f", {self.cards} cards"
        return f"{self.name}{cards} [{self.unit}]"

    @property
    def shown(self) -> str:
        """The value as people read it."""
        return shown(self.value, self.unit)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def shown(value: float, unit: str) -> str:
    """With its unit, in the digits that are worth reading: `4.4 s`, never `4.44e+03 ms`."""
    value, unit = _scaled(value, unit)
    if value == 0 or abs(value) >= 99.5:
        digits = 0
    elif unit in _TIMES:
        digits = 1 - math.floor(math.log10(float(f"{abs(value):.1e}")))
    else:
        digits = 2 if abs(value) < 9.995 else 1
    return f"{value:,.{max(digits, 0)}f} {unit}".rstrip()


def shown_target(target: float, unit: str) -> str:
    """A target in its own digits."""
    target, unit = _scaled(target, unit)
    return f"{target:,.4g} {unit}".rstrip()


def joined(texts: Sequence[str]) -> str:
    """Figures side by side, with their unit once if they share it: `0.57 / 0.97 ms`."""
    units = {text.partition(" ")[2] for text in texts}
    if len(units) == 1 and len(texts) > 1:
        texts = [*(text.partition(" ")[0] for text in texts[:-1]), texts[-1]]
        return " / ".join(texts)
    return "; ".join(texts)


def _scaled(value: float, unit: str) -> tuple[float, str]:
    if unit == "ms" and value >= 999.5:
        return value / 1000, "s"
    if unit == "ms" and 0 < value < 0.0995:
        return value * 1000, "µs"
    return value, unit


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of `values` lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(
    name: str,
    rounds: Sequence[Sequence[float]],
    p50: float | None = None,
    p99: float | None = None,
    *,
    cards: int | None = None,
) -> list[Figure]:
    """Of latencies in ms, in several rounds: the rounds' medians of p50 and of p99, and the maximum.

    `p50` and `p99` are targets. One round disturbed by other processes moves no median.
    """
    values = [value for each in rounds for value in each]
    shares = [percentile(values, percent / 100) for percent in range(101)]
    return [
        Figure(
            f"{name}, p50",
            "ms",
            statistics.median(percentile(each, 0.5) for each in rounds),
            p50,
            cards=cards,
            quantiles=tuple(round(share, 4) for share in shares),
        ),
        Figure(
            f"{name}, p99",
            "ms",
            statistics.median(percentile(each, 0.99) for each in rounds),
            p99,
            cards=cards,
        ),
        Figure(f"{name}, max", "ms", max(values), cards=cards),
    ]


def growth(figures: Sequence[Figure]) -> list[Figure]:
    """How each row that exists for several numbers of cards grows from the second last to the last.

    Of latencies the medians: a tail is the machine's.
    """
    rows: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.cards is not None and not figure.name.endswith((", p99", ", max")):
            rows.setdefault(figure.name, []).append(figure)
    grown = []
    for name, row in rows.items():
        by_size = sorted((figure.cards or 0, figure.value) for figure in row)
        if len(by_size) > 1:
            (few, before), (many, after) = by_size[-2:]
            if before:  # a share of the processor may be too small to be measured
                grown.append(Figure(f"{name}, {few} to {many} cards", "times", after / before))
    return grown
