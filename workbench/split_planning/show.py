"""`edgeflock split plan`: from the user's options to a plan, and the plan as tables or JSON."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from workbench.fleet_description import read_description
from workbench.recipe_folder import find_bundle
from workbench.report.labels import bytes_label
from workbench.split_planning.evolution import Evolution
from workbench.split_planning.planned_fleet import planned_fleet
from workbench.split_planning.planning import Chosen, KindPlan, SplitReport, plan_split

GUIDE = "docs/split-learning.md"


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to plan for; `helpers` of one profile take the place of the file's, `samples` that of what stores keep."""

    task: str
    fleet: Path
    helpers: int | None
    helper_profile: str
    samples: int | None
    as_json: bool


def show_plan(request: PlanRequest, how: Evolution) -> None:
    """Print the plan.

    Raises:
        ConfigurationError: with what the user can change.
    """
    task = parse_description((find_bundle(request.task) / DESCRIPTION_FILE).read_bytes())
    described = read_description(request.fleet, GUIDE)
    fleet = planned_fleet(described, request.fleet, request.helpers, request.helper_profile)
    report = plan_split(task, fleet, how, request.samples)
    if request.as_json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print_plan(report, Console())


def print_plan(report: SplitReport, console: Console) -> None:
    """A table for each kind of device, then what all of it comes to."""
    for kind in report.kinds:
        console.print(_table(kind))
        for each in kind.chosen:
            console.print(f"- {_chosen_words(each)}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"  {kind.why}", highlight=False, markup=False, soft_wrap=True)
    if report.search != "none":
        busy = ", ".join(f"{share:.0%}" for share in report.helper_busy) or "there is none"
        console.print(
            f"mean of a step: {report.mean_seconds:.3g} s ({report.search} search); helpers compute: {busy}",
            highlight=False,
            soft_wrap=True,
        )


def _table(kind: KindPlan) -> Table:
    table = Table(title=f"{kind.devices} x {kind.kind}, {kind.memory_limit_mib} MiB for the worker")
    table.add_column("cut")
    for name in ("s a step", "up", "down", "MiB"):
        table.add_column(name, justify="right")
    table.add_column("fits")
    for row in kind.cuts:
        table.add_row(
            row.cut,
            f"{row.seconds:.3g}",
            bytes_label(row.up_bytes),
            bytes_label(row.down_bytes),
            f"{row.memory_mib:.0f}",
            "no: " + row.why_not if row.why_not else "yes",
        )
    return table


def _chosen_words(chosen: Chosen) -> str:
    at = f" at helper {chosen.helper}" if chosen.helper else ""
    return f"{chosen.devices} with {chosen.cut}{at}: {chosen.seconds:.3g} s a step"
