"""`edgeflock split plan`: from the user's options to a plan, and the plan as tables or JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from workbench.fleet_description import read_description
from workbench.report.labels import bytes_label
from workbench.split_planning.planned_fleet import planned_fleet
from workbench.split_planning.planning import Chosen, KindPlan, SplitReport, Wanted, plan_split
from workbench.split_planning.searches import Found

GUIDE = "docs/split-learning.md"


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to plan for: a task by the folder of its `bundle`, and a fleet. `helpers` of one profile take the place of
    the file's.
    """

    bundle: Path
    fleet: Path
    helpers: int | None
    helper_profile: str
    as_json: bool


def show_plan(request: PlanRequest, wanted: Wanted) -> None:
    """Print the plan.

    Raises:
        ConfigurationError: with what the user can change.
    """
    task = parse_description((request.bundle / DESCRIPTION_FILE).read_bytes())
    described = read_description(request.fleet, GUIDE)
    fleet = planned_fleet(described, request.fleet, request.helpers, request.helper_profile)
    report = plan_split(task, fleet, wanted)
    if request.as_json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print_plan(report, Console())


def print_plan(report: SplitReport, console: Console) -> None:
    """A table for each kind of device, then what all of it comes to."""
    for kind in report.kinds:
        console.print(_table(kind))
        for each in kind.chosen:
            _say(console, f"- {_chosen_words(each)}")
        _say(console, f"  {kind.why}")
    if not report.found:
        return
    busy = ", ".join(f"{share:.0%}" for share in report.helper_busy) or "there is none"
    _say(
        console,
        f"mean of a step: {report.mean_seconds:.3g} s, {bytes_label(report.mean_bytes)} both ways;"
        f" helpers compute: {busy}",
    )
    _say(console, _search_words(report.found))
    for point in report.front:
        _say(
            console,
            f"- {point.seconds:.3g} s and {bytes_label(point.step_bytes)} a step, with --seconds-per-mb"
            f" {point.seconds_per_mb:.3g}",
        )


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, markup=False, soft_wrap=True)


def _search_words(found: Sequence[Found]) -> str:
    """Which search found the plan, and by how much."""
    best, *others = found
    if not others:
        return "all plans were looked at"
    behind = ", ".join(
        f"the {other.search} search's is as good"
        if other.score == best.score
        else f"the {other.search} search's is worse by {other.score / best.score - 1:.2%}"
        for other in others
    )
    return f"found by the {best.search} search; {behind}"


def _table(kind: KindPlan) -> Table:
    table = Table(title=f"{kind.devices} x {kind.kind}, {kind.memory_limit_mib} MiB for the worker")
    table.add_column("cut")
    for name in ("s a step", "up", "down", "update", "version", "MiB"):
        table.add_column(name, justify="right")
    table.add_column("fits")
    for row in kind.cuts:
        table.add_row(
            row.cut,
            f"{row.seconds:.3g}",
            bytes_label(row.up_bytes),
            bytes_label(row.down_bytes),
            bytes_label(row.round_up_bytes),
            bytes_label(row.round_down_bytes),
            f"{row.memory_mib:.0f}",
            "no: " + row.why_not if row.why_not else "yes",
        )
    return table


def _chosen_words(chosen: Chosen) -> str:
    at = f" at helper {chosen.helper}" if chosen.helper else ""
    return f"{chosen.devices} with {chosen.cut}{at}: {chosen.seconds:.3g} s a step"
