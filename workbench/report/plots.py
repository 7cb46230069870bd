"""Charts and strips of cells as HTML: a chart's values travel as JSON, and as a table for whoever can't see it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from workbench.report.labels import bytes_label, percent_label

Unit = Literal["number", "percent", "bytes"]
"""`percent` is of shares, from 0 to 1."""

SHOWN_AS: Mapping[Unit, Callable[[float], str]] = {
    "number": lambda value: f"{value:.6g}",
    "percent": percent_label,
    "bytes": bytes_label,
}

HEIGHT = 300
"""Pixels."""


@dataclass(frozen=True, slots=True)
class Axis:
    """`label` is what the values are; it begins with the least of them, or with `begins`."""

    label: str
    unit: Unit = "number"
    logarithmic: bool = False
    begins: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Points `(x, y)`, joined in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Reference:
    """A dashed horizontal line to compare with."""

    y: float
    name: str


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, reference: Reference | None = None) -> str:
    """One or more lines over common axes."""
    places = sorted({at for line in lines for at, _ in line.points})
    at = [dict(line.points) for line in lines]
    rows = [_row(line.name, [found.get(place) for place in places]) for line, found in zip(lines, at, strict=True)]
    if reference is not None:
        rows.append(_row(reference.name, [reference.y] * len(places)) | {"dashed": True, "reference": True})
    return _chart(title, _shape(x, y), places, rows)


def bar_chart(title: str, bars: Mapping[str, float], x: Axis, y: Axis) -> str:
    """A bar for each name, side by side."""
    shape = _shape(x, y) | {"places": list(bars)}
    return _chart(title, shape, list(range(len(bars))), [_row(y.label, list(bars.values()))])


def strip(counts: Sequence[int], titles: Sequence[str], about: str) -> str:
    """A row of cells, one per count; the fullest of the row has the full colour, an empty one none."""
    fullest = max(counts, default=0) or 1
    cells = []
    for count, title in zip(counts, titles, strict=True):
        # A single sample among hundreds must not look like none.
        filled = f'<b style="opacity:{0.15 + 0.85 * count / fullest:.2f}"></b>' if count else ""
        cells.append(f'<i title="{escape(title)}">{filled}</i>')
    spoken = ", ".join(map(str, counts))
    return f'<span class="strip" role="img" aria-label="{escape(about)}: {spoken}">{"".join(cells)}</span>'


def strip_header(labels: Sequence[str]) -> str:
    """The labels that stand above the cells of strips."""
    return f'<span class="strip">{"".join(f"<span>{escape(each)}</span>" for each in labels)}</span>'


def _row(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    return {"label": name, "values": list(values)}


def _shape(x: Axis, y: Axis) -> dict[str, Any]:
    axes = {
        name: {"label": each.label, "unit": each.unit, "log": each.logarithmic, "begins": each.begins}
        for name, each in {"x": x, "y": y}.items()
    }
    return {**axes, "height": HEIGHT, "legend": True}


def _chart(title: str, shape: Mapping[str, Any], places: Sequence[float], lines: Sequence[Mapping[str, Any]]) -> str:
    chart = {"title": title, "shape": shape, "places": places, "lines": lines}
    # In HTML, a script ends at the first "</script", whatever that is in JSON.
    data = json.dumps(chart, allow_nan=False).replace("<", "\\u003c")
    names = shape.get("places", places)
    rows = [_cells("th", [shape["x"]["label"], *(line["label"] for line in lines)])]
    x_unit, y_unit = shape["x"]["unit"], shape["y"]["unit"]
    rows += [
        _cells("td", [_shown(name, x_unit), *(_shown(line["values"][place], y_unit) for line in lines)])
        for place, name in enumerate(names)
    ]
    table = f"<details><summary>The same numbers as a table</summary><table>{''.join(rows)}</table></details>"
    return f'<div class="plot"><script type="application/json">{data}</script>{table}</div>\n'


def _cells(tag: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>\n"


def _shown(value: float | str | None, unit: Unit) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return SHOWN_AS[unit](value)
