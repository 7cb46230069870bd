"""The summary of a simulation as a table on a terminal."""

from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.table import Table

from workbench.report.labels import bytes_label
from workbench.report.privacy_told import told_notes
from workbench.simulation.ledger import Point, Summary
from workbench.simulation.verdict import remarks

MAX_GUARD_ROWS = 4


def print_summary(summary: Summary, console: Console, wall_seconds: float) -> None:
    """A table of what matters, and what the user may want to change."""
    table = Table(title=f"{summary.devices} devices, seed {summary.seed}", show_header=False)
    for row in _rows(summary):
        table.add_row(*row)
    table.add_row("simulated in", f"{wall_seconds:.1f} s")
    console.print(table)
    for remark in remarks(summary):
        console.print(f"- {remark}", highlight=False, markup=False, soft_wrap=True)


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "virtual time", f"{summary.virtual_seconds / 3600:.2f} h"
    yield "versions, of updates", f"{summary.versions:,}, {summary.updates:,}"
    yield summary.measure, f"{summary.score:.4f}, of version 0 {summary.first_score:.4f}"
    for value, name, note in told_notes(summary.told):
        yield name, f"{value} {note}"
    for head, score in summary.heads.items():
        yield head, f"{score:.4f}"
    if summary.devices_in_clusters:
        found = (f"{cluster or 'none'}: {count:,}" for cluster, count in summary.devices_in_clusters.items())
        yield "devices in clusters", ", ".join(found)
    if summary.target is not None:
        yield f"{summary.target:g} reached", _reached(summary.reached)
    yield "sent up", _by_kind(summary.bytes_up)
    yield "sent down", _by_kind(summary.bytes_down)
    yield "staleness", _staleness(summary.staleness)
    refused = sum(count.times for count in summary.refused.values())
    yield (
        "mishaps",
        f"{summary.crashes:,} crashes, {summary.rounds_lost:,} rounds lost to them,"
        f" {summary.rounds_diverged.times:,} diverged; {refused:,} messages refused",
    )
    for words, times in sorted(summary.guard_refusals.items(), key=lambda item: -item[1])[:MAX_GUARD_ROWS]:
        yield "deferred by a guard", f"{times:,} times: {words}"


def _reached(point: Point | None) -> str:
    if point is None:
        return "not in this time"
    hours = point.virtual_seconds / 3600
    return f"after {hours:.2f} h and {point.updates:,} updates, {bytes_label(point.uplink_bytes)} of them"


def _by_kind(sizes: Mapping[str, int]) -> str:
    parts = ", ".join(f"{kind} {bytes_label(size)}" for kind, size in sorted(sizes.items(), key=lambda item: -item[1]))
    return f"{bytes_label(sum(sizes.values()))} ({parts})" if parts else "nothing"


def _staleness(counts: Mapping[int, int]) -> str:
    if not counts:
        return "no update"
    values = np.repeat(list(counts), list(counts.values()))
    median, high = np.percentile(values, [50, 95])
    return f"median {median:.0f}, 95 % at most {high:.0f}, largest {values.max()}"
