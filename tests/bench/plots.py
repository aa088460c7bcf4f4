"""SVG by hand: how each row grows with the cards, and how latencies are distributed.

All are drawn on logarithmic scales. Growth is relative to the smallest node, so that rows of any
unit share a plot, and what is proportional to the number of cards runs along the dotted line; of
latencies the tail is seen beside the median. The ground is white in a dark page too, and no two lines
share colour and stroke: the colours are Okabe's and Ito's, which colour-blind readers can distinguish.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import attrs

from tests.bench.figures import Figure, shown_target

_WIDTH: Final = 980
_LEFT, _TOP, _RIGHT, _BOTTOM = 68, 60, 456, 52
_LEAST_HEIGHT: Final = 420
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STROKES: Final = ("", "7 3", "2 3")
"""Dashes of the first seven lines, of the next seven, and so on."""
_LINE_HEIGHT: Final = 18
_SWATCH: Final = 26
_STEPS: Final = tuple(digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5))
"""Where the axis upwards may begin, end, and have a mark."""
_SHARES: Final = (0, 50, 90, 99, 100)
"""Percentiles with a mark on the axis."""
_FURTHEST: Final = 0.003
"""Where the maximum is drawn: the axis of shares has no place for all of them."""
_CALLS: Final = ("Allocate, ", "floor: ", "Prepare", "refused ", "16 of 32 ")
"""How rows of calls begin; the others are of events."""

Points = tuple[tuple[float, float], ...]


@attrs.frozen
class Line:
    """A row of points, with both coordinates above 0; the legend has its name."""

    name: str
    points: Points
    is_guide: bool = False
    """Drawn in grey dots: the line was not measured."""


@attrs.frozen
class Plot:
    """Two logarithmic axes, the one across with its marks: a value, and what is written there."""

    title: str
    x_label: str
    x_marks: Sequence[tuple[float, str]]
    unit: str
    """Of the axis upwards."""
    lines: Sequence[Line]


def draw_all(figures: Sequence[Figure], folder: Path) -> None:
    """Writes `growth.svg`, `calls.svg` and `events.svg` into `folder`, whichever have rows."""
    folder.mkdir(parents=True, exist_ok=True)
    if lines := _growth_lines(figures):
        cards = sorted({x for line in lines for x, _ in line.points})
        ends = ((cards[0], 1.0), (cards[-1], cards[-1] / cards[0]))
        lines.append(Line("proportional to the cards", ends, is_guide=True))
        title = "What a node of many cards costs, relative to one of few"
        marks = [(x, f"{x:,}") for x in cards]
        (folder / "growth.svg").write_text(draw(Plot(title, "cards", marks, "×", lines)))
    latencies = [each for each in figures if each.quantiles and not each.cards]
    marks = [(_distance(share), f"{share} %" if share < 100 else "max") for share in _SHARES]
    for file, title, is_call in (
        ("calls.svg", "How long calls take, with their medians", True),
        ("events.svg", "How long it takes until others know, with medians", False),
    ):
        lines = [_latency_line(each) for each in latencies if is_call == _is_of_calls(each)]
        if lines:
            plot = Plot(title, "share that took no longer", marks, "ms", lines)
            (folder / file).write_text(draw(plot))


def _is_of_calls(figure: Figure) -> bool:
    return figure.name.startswith(_CALLS)


def _growth_lines(figures: Sequence[Figure]) -> list[Line]:
    rows: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.cards and figure.value > 0 and not figure.name.endswith((", p99", ", max")):
            rows.setdefault(figure.name, []).append(figure)
    lines = []
    for name, row in rows.items():
        row.sort(key=lambda figure: figure.cards or 0)
        points = tuple((figure.cards or 0, figure.value / row[0].value) for figure in row)
        lines.append(Line(f"{name}: {row[-1].shown}", points))
    return [line for line in lines if len(line.points) > 1]


def _latency_line(figure: Figure) -> Line:
    points = tuple((_distance(share), value) for share, value in enumerate(figure.quantiles))
    return Line(f"{figure.name.removesuffix(', p50')}: {figure.shown}", points)


def _distance(share: float) -> float:
    """1 at the fastest call, growing tenfold for each nine of the share that is passed."""
    return 1 / max(1 - share / 100, _FURTHEST)


def draw(plot: Plot) -> str:
    """The plot as an SVG document."""
    height = max(_LEAST_HEIGHT, _TOP + _BOTTOM + _LINE_HEIGHT * len(plot.lines))
    x_low, x_high = plot.x_marks[0][0], plot.x_marks[-1][0]
    values = [y for line in plot.lines for _, y in line.points]
    y_low = max(step for step in _STEPS if step <= min(values))
    y_high = min(step for step in _STEPS if step >= max(values) and step > y_low)
    right, bottom = _WIDTH - _RIGHT, height - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (right - _LEFT) * math.log(x / x_low) / math.log(x_high / x_low)

    def up(y: float) -> float:
        return bottom - (bottom - _TOP) * math.log(y / y_low) / math.log(y_high / y_low)

    parts = [
        _text(16, 26, plot.title, 'font-size="15" font-weight="bold"'),
        _text((_LEFT + right) / 2, height - 10, plot.x_label, 'text-anchor="middle"'),
    ]
    steps = [step for step in _STEPS if y_low <= step <= y_high]
    for step in _marked(steps, (bottom - _TOP) // _LINE_HEIGHT):
        parts.append(_path([(_LEFT, up(step)), (right, up(step))], 'stroke="#e4e4e4"'))
        mark = shown_target(step, plot.unit)
        parts.append(_text(_LEFT - 8, up(step) + 4, mark, 'text-anchor="end"'))
    for x, mark in plot.x_marks:
        parts.append(_path([(across(x), _TOP), (across(x), bottom)], 'stroke="#d8d8d8"'))
        parts.append(_text(across(x), bottom + 18, mark, 'text-anchor="middle"'))
    order = sorted(plot.lines, key=lambda line: -line.points[-1][1])
    labels = _apart([up(line.points[-1][1]) for line in order], bottom)
    for number, (line, label) in enumerate(zip(order, labels, strict=True)):
        style = _style(line, number)
        points = [(across(x), up(y)) for x, y in line.points]
        parts.append(_path(points, f'{style} stroke-width="2" stroke-linejoin="round"'))
        parts.append(_path([points[-1], (right + 18, label)], 'stroke="#aaa" stroke-width="0.7"'))
        swatch = [(right + 18, label), (right + 18 + _SWATCH, label)]
        parts.append(_path(swatch, f'{style} stroke-width="3"'))
        parts.append(_text(right + 24 + _SWATCH, label + 4, line.name, ""))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="white"/>\n{body}\n</svg>\n'
    )


def _style(line: Line, number: int) -> str:
    if line.is_guide:
        return 'stroke="#888" stroke-dasharray="1 4"'
    dashes = _STROKES[number // len(_COLOURS) % len(_STROKES)]
    return f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-dasharray="{dashes or "none"}"'


def _marked(steps: Sequence[float], room: float) -> list[float]:
    """All steps, or the powers of ten where there is no room for all of them."""
    if len(steps) <= room:
        return list(steps)
    return [step for step in steps if f"{step:.0e}".startswith("1")]


def _apart(heights: Sequence[float], lowest: float) -> list[float]:
    """Heights of labels from the top down, moved so that none covers another or leaves the plot."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + _LINE_HEIGHT) if placed else max(height, _TOP))
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], lowest)
        lowest = placed[index] - _LINE_HEIGHT
    return placed


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#333" {attributes}>{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]], attributes: str) -> str:
    steps = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{steps}" fill="none" {attributes}/>'
