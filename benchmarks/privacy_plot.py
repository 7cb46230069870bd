"""A page with a plot for each level of privacy: accuracy over epsilon, beside that without noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.report.svg_plots import (
    PLOT_COLOURS,
    PLOT_STYLE,
    Axis,
    Point,
    Reference,
    Series,
    line_plot,
    log_ticks,
    nice_ticks,
)


def write_plots(levels: Mapping[str, Sequence[Mapping[str, Any]]], file: Path) -> None:
    """Write the page; `levels` are as the benchmark prints them."""
    figures = "".join(
        f"<h2>privacy of {level}</h2><figure>{_plot(level, rows)}</figure>" for level, rows in levels.items()
    )
    file.write_text(f'<!doctype html><meta charset="utf-8"><style>{PLOT_COLOURS}{PLOT_STYLE}</style>{figures}\n')


def _plot(level: str, rows: Sequence[Mapping[str, Any]]) -> str:
    noised = [row for row in rows if row["epsilon"] is not None]
    without = [100 * row["right"] for row in rows if row["epsilon"] is None]
    if not noised:
        return "<figcaption>no row has noise</figcaption>"
    points = [Point(row["epsilon"], 100 * row["right"], f"epsilon {row['epsilon']:g}") for row in noised]
    heights = [point.y for point in points] + without
    across = log_ticks(min(point.x for point in points), max(point.x for point in points), most=12)
    return line_plot(
        [Series(level, "sent", points)],
        Axis("epsilon", across, lambda epsilon: f"{epsilon:g}", logarithmic=True),
        Axis("right", nice_ticks(min(heights), max(heights), most=6), lambda share: f"{share:g} %"),
        reference=Reference(without[0], f"without noise: {without[0]:.1f} %") if without else None,
        about=f"accuracy over epsilon, privacy of {level}",
    )
