"""A page with a chart for each contest of `federated_generation`: accuracy over bytes of rounds and of prompts."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from workbench.report.page import whole_page
from workbench.report.plots import Axis, Line, Reference, line_chart


def write_plots(contests: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the page; `contests` are as the benchmark prints them."""
    sections = "".join(f"<section><h2>{escape(_name(each))}</h2>{_plot(each)}</section>" for each in contests)
    file.write_text(whole_page("Prompts beside rounds", f"<h1>Prompts beside rounds</h1>{sections}"))


def _name(contest: Mapping[str, Any]) -> str:
    return f"{contest['scenario']}, {contest['skew']}"


def _plot(contest: Mapping[str, Any]) -> str:
    prompts, rounds = contest["prompts"], contest["rounds"]
    start, level = prompts["bytes_of_all"], prompts["accuracy"]
    then = contest["then_rounds"]["accuracies"]
    step = contest["then_rounds"]["bytes"] / len(then)
    return line_chart(
        f"accuracy over bytes, {_name(contest)}",
        [
            Line("rounds", [(rounds["bytes_after"][number], got) for number, got in rounds["accuracy_after"].items()]),
            Line("prompts, then rounds", [(start + number * step, got) for number, got in enumerate(then, 1)]),
        ],
        Axis("bytes of all devices' signed messages", "bytes", logarithmic=True),
        Axis("accuracy", "percent"),
        Reference(level, f"prompts: {100 * level:.1f} % for {start / 1000:.1f} kB"),
    )
