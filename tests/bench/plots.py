"""SVG by hand: how each row grows with the cards, and how latencies are distributed.

Both are drawn on logarithmic scales. Growth is relative to the smallest node, so that rows of any
unit share a plot, and what is proportional to the number of cards runs along the dotted line; of
latencies the tail is seen beside the median.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import attrs

from tests.bench.figures import Figure

_WIDTH: Final = 920
_HEIGHT: Final = 420
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 48, 430, 46
_COLOURS: Final = (
    "#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#4d4d4d",
    "#00899b", "#a5294f", "#5b7a1c", "#3f51b5", "#8d5524", "#777777",
    "#d81b9a", "#0b5d2e", "#7a4fd0",
)  # fmt: skip
_LINE_HEIGHT: Final = 15
_MANY: Final = 1000
_STEPS: Final = tuple(digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5))
"""Where the axis upwards may begin, end, and have a mark."""
_SHARES: Final = (0, 50, 90, 99, 100)
"""Percentiles with a mark on the axis."""
_FURTHEST: Final = 0.003
"""Where the maximum is drawn: the axis of shares has no place for all of them."""

Points = tuple[tuple[float, float], ...]


@attrs.frozen
class Line:
    """A row of points, with both coordinates above 0; drawn with its name at the end."""

    name: str
    points: Points
    dotted: bool = False


@attrs.frozen
class Plot:
    """Two logarithmic axes, the one across with its marks: a value, and what is written there."""

    title: str
    x_label: str
    x_marks: Sequence[tuple[float, str]]
    y_label: str
    lines: Sequence[Line]


def draw_all(figures: Sequence[Figure], folder: Path) -> None:
    """Writes `growth.svg` and `latencies.svg` into `folder`, whichever have rows."""
    folder.mkdir(parents=True, exist_ok=True)
    if lines := _growth_lines(figures):
        cards = sorted({x for line in lines for x, _ in line.points})
        ends = ((cards[0], 1.0), (cards[-1], cards[-1] / cards[0]))
        lines.append(Line("proportional to the cards", ends, dotted=True))
        title = "What a node of many cards costs, relative to one of few"
        marks = [(x, f"{x:g}") for x in cards]
        (folder / "growth.svg").write_text(draw(Plot(title, "cards", marks, "times", lines)))
    if lines := [
        _latency_line(figure) for figure in figures if figure.quantiles and not figure.cards
    ]:
        marks = [(_distance(share), f"{share} %" if share < 100 else "max") for share in _SHARES]
        plot = Plot(
            "Latencies, and their medians", "share of calls that took no longer", marks, "ms", lines
        )
        (folder / "latencies.svg").write_text(draw(plot))


def _growth_lines(figures: Sequence[Figure]) -> list[Line]:
    rows: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.cards and figure.value > 0 and not figure.name.endswith((", p99", ", max")):
            rows.setdefault(figure.name, []).append(figure)
    lines = []
    for name, row in rows.items():
        row.sort(key=lambda figure: figure.cards or 0)
        points = tuple((figure.cards or 0, figure.value / row[0].value) for figure in row)
        lines.append(Line(f"{name}: {_shown(row[-1].value)} {row[-1].unit}", points))
    return [line for line in lines if len(line.points) > 1]


def _latency_line(figure: Figure) -> Line:
    points = tuple((_distance(share), value) for share, value in enumerate(figure.quantiles))
    return Line(f"{figure.name.removesuffix(', p50')}: {_shown(figure.value)} ms", points)


def _shown(value: float) -> str:
    """Three digits, or whole numbers from a thousand on."""
    return f"{value:.3g}" if value < _MANY else f"{value:,.0f}"


def _distance(share: float) -> float:
    """1 at the fastest call, growing tenfold for each nine of the share that is passed."""
    return 1 / max(1 - share / 100, _FURTHEST)


def draw(plot: Plot) -> str:
    """The plot as an SVG document."""
    x_low, x_high = plot.x_marks[0][0], plot.x_marks[-1][0]
    values = [y for line in plot.lines for _, y in line.points]
    y_low = max(step for step in _STEPS if step <= min(values))
    y_high = min(step for step in _STEPS if step >= max(values) and step > y_low)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (right - _LEFT) * math.log(x / x_low) / math.log(x_high / x_low)

    def up(y: float) -> float:
        return bottom - (bottom - _TOP) * math.log(y / y_low) / math.log(y_high / y_low)

    parts = [
        _text(_LEFT, 22, plot.title, 'font-size="15" font-weight="bold"'),
        _text((_LEFT + right) / 2, _HEIGHT - 8, plot.x_label, 'text-anchor="middle"'),
        _text(_LEFT - 8, _TOP - 10, plot.y_label, 'text-anchor="end"'),
    ]
    for step in (step for step in _STEPS if y_low <= step <= y_high):
        parts.append(_path([(_LEFT, up(step)), (right, up(step))], 'stroke="#e4e4e4"'))
        parts.append(_text(_LEFT - 8, up(step) + 4, f"{step:g}", 'text-anchor="end"'))
    for x, mark in plot.x_marks:
        parts.append(_path([(across(x), _TOP), (across(x), bottom)], 'stroke="#d8d8d8"'))
        parts.append(_text(across(x), bottom + 18, mark, 'text-anchor="middle"'))
    order = sorted(plot.lines, key=lambda line: -line.points[-1][1])
    labels = _apart([up(line.points[-1][1]) + 4 for line in order])
    for number, (line, label) in enumerate(zip(order, labels, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        style = 'stroke-dasharray="2 5"' if line.dotted else 'stroke-width="2"'
        points = [(across(x), up(y)) for x, y in line.points]
        parts.append(_path(points, f'stroke="{colour}" stroke-linejoin="round" {style}'))
        leader = [points[-1], (right + 10, label - 4)]
        parts.append(_path(leader, f'stroke="{colour}" stroke-width="0.7"'))
        parts.append(_text(right + 14, label, line.name, f'style="fill:{colour}"'))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of labels from the top down, moved so that none covers another or leaves the plot."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + _LINE_HEIGHT) if placed else height)
    lowest = float(_HEIGHT - 8)
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], lowest)
        lowest = placed[index] - _LINE_HEIGHT
    return placed


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#333" {attributes}>{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]], attributes: str) -> str:
    steps = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{steps}" fill="none" {attributes}/>'
