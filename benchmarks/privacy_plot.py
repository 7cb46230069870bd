"""A page with a chart for each level of privacy: accuracy over epsilon, beside that without noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.report.page import whole_page
from workbench.report.plots import Axis, Line, Reference, line_chart


def write_plots(levels: Mapping[str, Sequence[Mapping[str, Any]]], file: Path) -> None:
    """Write the page; `levels` are as the benchmark prints them."""
    sections = "".join(
        f"<section><h2>privacy of {level}</h2>{_plot(level, rows)}</section>" for level, rows in levels.items()
    )
    file.write_text(whole_page("What privacy costs", f"<h1>What privacy costs</h1>{sections}"))


def _plot(level: str, rows: Sequence[Mapping[str, Any]]) -> str:
    points = [(row["epsilon"], row["right"]) for row in rows if row["epsilon"] is not None]
    without = [row["right"] for row in rows if row["epsilon"] is None]
    if not points:
        return "<p>no row has noise</p>"
    return line_chart(
        f"accuracy over epsilon, privacy of {level}",
        [Line(level, points)],
        Axis("epsilon", logarithmic=True),
        Axis("right", "percent"),
        Reference(without[0], f"without noise: {100 * without[0]:.1f} %") if without else None,
    )
