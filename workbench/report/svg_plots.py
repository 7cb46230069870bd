"""SVG plots as text: values in, one `<svg>` element out, coloured by `PLOT_STYLE` in the page around it."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape

WIDTH, HEIGHT = 860, 300
"""Size of a plot in its own units; the page scales it to the column."""
LEFT, RIGHT, TOP, BOTTOM = 62, 26, 36, 48
"""Margins around the plot area: tick labels, half of the last one, legend, tick labels and axis label."""

CELL = 15
"""Edge of one cell of a heat strip, in pixels."""

PIXELS_PER_CHARACTER = 6.8
"""Upper estimate for the 12 px font; decides which bar labels have room."""

PLOT_STYLE = """
figure > svg { display: block; width: 100%; min-width: 620px; height: auto; }
svg text { font-size: 12px; fill: var(--soft); }
svg .axis { fill: var(--ink); }
.grid { stroke: var(--rule); } .reference { stroke: var(--ink); stroke-dasharray: 5 4; }
.sent, .dense { stroke-width: 2; stroke-linejoin: round; } polyline { fill: none; }
.sent { stroke: var(--sent); fill: var(--sent); } .dense { stroke: var(--dense); fill: var(--dense); }
circle { stroke: none; }
circle:hover, .bar:hover, .heat:hover { stroke: var(--ink); stroke-width: 2; }
.bar, .heat { fill: var(--sent); } .cell { fill: var(--cell); }
"""
"""CSS; the page defines the colours `--ink --soft --rule --cell --sent --dense`."""

PLOT_COLOURS = ":root { --ink: #222; --soft: #666; --rule: #ddd; --cell: #eee; --sent: #2a6fb0; --dense: #b0632a }"
"""Those of a plain white page."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values from the first to the last tick."""

    label: str
    ticks: Sequence[float]
    tick_label: Callable[[float], str]
    logarithmic: bool = False

    def fraction(self, value: float) -> float:
        """Where `value` lies: 0 at the first tick, 1 at the last."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Point:
    """`title` is what a pointer that rests on the point shows."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined by a line; `style` is the CSS class that colours both."""

    name: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Reference:
    """A dashed horizontal line to compare with."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram."""

    label: str
    height: float
    title: str


def nice_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Ascending multiples of 1, 2 or 5 times a power of ten that enclose `low` and `high` (normal floats).

    At least 2 and at most `most` (>= 3) ticks. Equal or nearly equal ends get a range of their own size.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        high = low + (abs(low) or 1.0)
    # Fractions, because k * 0.1 rounded to float may end up on the wrong side of `low` or `high`.
    first, last = Fraction(low), Fraction(high)
    decade = math.floor(math.log10((high - low) / most))
    steps = (mantissa * Fraction(10) ** exponent for exponent in itertools.count(decade) for mantissa in (1, 2, 5))
    step = next(step for step in steps if -(-last // step) - first // step < most)
    return [float(index * step) for index in range(first // step, -(-last // step) + 1)]


def log_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Ascending round numbers for a logarithmic axis that enclose `low` and `high` (both > 0).

    At least 2 and at most `most` (>= 3) ticks: 1-2-5 per decade, else 1-3, else every decade or every nth.
    """
    for mantissas in ((1, 2, 5), (1, 3)):
        ticks = _enclosing(low, high, mantissas, 1)
        if len(ticks) <= most:
            return ticks
    return next(ticks for stride in itertools.count(1) if len(ticks := _enclosing(low, high, (1,), stride)) <= most)


def _enclosing(low: float, high: float, mantissas: Iterable[int], stride: int) -> list[float]:
    first = math.floor(math.log10(low)) // stride * stride
    exponents = range(first - stride, math.ceil(math.log10(high)) + 2 * stride, stride)
    values = [mantissa * 10.0**exponent for exponent in exponents for mantissa in mantissas]
    start = max(index for index, value in enumerate(values) if value <= low)
    end = next(index for index, value in enumerate(values) if value >= high)
    return values[start : max(end, start + 1) + 1]


def line_plot(series: Sequence[Series], x: Axis, y: Axis, *, reference: Reference | None, about: str) -> str:
    """One or more curves over common axes; `about` is read aloud instead of the picture."""
    parts = [
        _horizontal_grid(y),
        _x_ticks((_across(x.fraction(tick)), x.tick_label(tick)) for tick in x.ticks),
    ]
    parts.append(_axis_label(x.label))
    legend = [(one.name, one.style) for one in series] if len(series) > 1 else []
    if reference is not None:
        level = _up(y.fraction(reference.y))
        parts.append(f'<path class="reference" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
        legend.append((reference.label, "reference"))
    parts.extend(_curve(one, x, y) for one in series)
    parts.append(_legend(legend))
    return _svg(WIDTH, HEIGHT, about, "".join(parts))


def bar_plot(bars: Sequence[Bar], y: Axis, *, x_label: str, about: str) -> str:
    """One bar per entry, side by side; labels that would overlap are left out evenly."""
    pitch = (WIDTH - LEFT - RIGHT) / len(bars)
    # One lone bar as wide as the page looks like a mistake.
    width = min(0.8 * pitch, 80.0)
    centres = [LEFT + (index + 0.5) * pitch for index in range(len(bars))]
    longest = max(len(bar.label) for bar in bars)
    every = math.ceil((longest + 1) * PIXELS_PER_CHARACTER / pitch)
    parts = [
        _horizontal_grid(y),
        _x_ticks((centres[at], bars[at].label) for at in range(0, len(bars), every)),
    ]
    parts.append(_axis_label(x_label))
    for centre, bar in zip(centres, bars, strict=True):
        top = _up(y.fraction(bar.height))
        parts.append(
            f'<rect class="bar" x="{centre - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}"'
            f' height="{HEIGHT - BOTTOM - top:.1f}"><title>{escape(bar.title)}</title></rect>'
        )
    return _svg(WIDTH, HEIGHT, about, "".join(parts))


def heat_strip(counts: Sequence[int], titles: Sequence[str], *, about: str) -> str:
    """A row of cells, one per count; the fullest of the row has the full colour, an empty one none."""
    fullest = max(counts, default=0) or 1
    cells = []
    for index, (count, title) in enumerate(zip(counts, titles, strict=True)):
        square = f'x="{index * CELL}" y="0" width="{CELL - 1}" height="{CELL}"'
        # A single sample among hundreds must not look like none.
        opacity = 0.15 + 0.85 * count / fullest if count else 0
        cells.append(
            f'<rect class="cell" {square}/>'
            f'<rect class="heat" {square} fill-opacity="{opacity:.2f}"><title>{escape(title)}</title></rect>'
        )
    return _fixed_svg(len(counts), about, "".join(cells))


def heat_header(labels: Sequence[str], *, about: str) -> str:
    """The labels that stand above the cells of heat strips."""
    texts = (_text((index + 0.5) * CELL, CELL - 4, label, "tick") for index, label in enumerate(labels))
    return _fixed_svg(len(labels), about, "".join(texts))


def _fixed_svg(cells: int, about: str, content: str) -> str:
    width = max(1, cells) * CELL
    return _svg(width, CELL, about, content).replace("<svg ", f'<svg width="{width}" height="{CELL}" ', 1)


def _svg(width: int, height: int, about: str, content: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}">{content}</svg>'


def _across(fraction: float) -> float:
    return LEFT + fraction * (WIDTH - LEFT - RIGHT)


def _up(fraction: float) -> float:
    return HEIGHT - BOTTOM - fraction * (HEIGHT - BOTTOM - TOP)


def _text(x: float, y: float, text: str, style: str, *, anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _horizontal_grid(axis: Axis) -> str:
    parts = [_text(4, 14, axis.label, "axis", anchor="start")]
    for tick in axis.ticks:
        level = _up(axis.fraction(tick))
        parts.append(f'<path class="grid" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, level + 4, axis.tick_label(tick), "tick", anchor="end"))
    return "".join(parts)


def _x_ticks(places: Iterable[tuple[float, str]]) -> str:
    floor = HEIGHT - BOTTOM
    return "".join(
        f'<path class="grid" d="M{at:.1f} {floor}v5"/>{_text(at, floor + 19, label, "tick")}' for at, label in places
    )


def _axis_label(label: str) -> str:
    return _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, label, "axis")


def _curve(series: Series, x: Axis, y: Axis) -> str:
    places = [(_across(x.fraction(point.x)), _up(y.fraction(point.y))) for point in series.points]
    # Many versions lie close together: smaller dots keep the line visible.
    radius = 3.5 if len(places) <= 80 else 2
    line = " ".join(f"{at:.1f},{level:.1f}" for at, level in places)
    dots = (
        f'<circle cx="{at:.1f}" cy="{level:.1f}" r="{radius}"><title>{escape(point.title)}</title></circle>'
        for (at, level), point in zip(places, series.points, strict=True)
    )
    return f'<g class="{series.style}"><polyline points="{line}"/>{"".join(dots)}</g>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names with a dash in their style, in a row that ends at the right margin."""
    parts = []
    right = float(WIDTH - RIGHT)
    for name, style in reversed(entries):
        right -= len(name) * PIXELS_PER_CHARACTER
        parts.append(_text(right, 14, name, "tick", anchor="start"))
        parts.append(f'<g class="{style}"><path d="M{right - 33:.1f} 10h26"/></g>')
        right -= 48
    return "".join(parts)
