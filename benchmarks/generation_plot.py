"""A page with a plot for each contest of `federated_generation`: accuracy of rounds over bytes, and that of prompts."""

from collections.abc import Mapping, Sequence
from html import escape
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


def write_plots(contests: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the page; `contests` are as the benchmark prints them."""
    figures = "".join(f"<h2>{escape(_name(each))}</h2><figure>{_plot(each)}</figure>" for each in contests)
    file.write_text(f'<!doctype html><meta charset="utf-8"><style>{PLOT_COLOURS}{PLOT_STYLE}</style>{figures}\n')


def _name(contest: Mapping[str, Any]) -> str:
    return f"{contest['scenario']}, {contest['skew']}"


def _plot(contest: Mapping[str, Any]) -> str:
    prompts, rounds = contest["prompts"], contest["rounds"]
    after = [(number, rounds["bytes_after"][number], accuracy) for number, accuracy in rounds["accuracy_after"].items()]
    start = prompts["bytes_of_all"]
    then = enumerate(contest["then_rounds"]["accuracies"], 1)
    step = contest["then_rounds"]["bytes"] / len(contest["then_rounds"]["accuracies"])
    curves = [
        Series("rounds", "sent", [Point(sent, 100 * got, f"round {number}") for number, sent, got in after]),
        Series(
            "prompts, then rounds",
            "dense",
            [Point(start + number * step, 100 * got, f"round {number}") for number, got in then],
        ),
    ]
    points = [point for curve in curves for point in curve.points]
    across = log_ticks(min(start, *(point.x for point in points)), max(point.x for point in points), most=12)
    up = nice_ticks(0.0, 100.0, most=6)
    level = 100 * prompts["accuracy"]
    return line_plot(
        curves,
        Axis("bytes of all devices' signed messages", across, lambda sent: f"{sent / 1000:g} kB", logarithmic=True),
        Axis("accuracy", up, lambda share: f"{share:g} %"),
        reference=Reference(level, f"prompts: {level:.1f} % for {start / 1000:.1f} kB"),
        about=f"accuracy over bytes, {_name(contest)}",
    )
