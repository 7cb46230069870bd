"""From a fleet and a task to a plan: the table of every cut for every kind, and what is chosen and why. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from fleet_protocol.task_description import TaskDescription
from workbench.split_planning.cut_options import CutOption, cut_options
from workbench.split_planning.evolution import Evolution, evolve
from workbench.split_planning.planned_fleet import Kind, PlannedFleet
from workbench.split_planning.shared_helpers import Plan, Sharing, best_of_all

MOST_LOOKED_AT = 20_000
"""Plans: where there are no more, each is looked at."""


class CutRow(msgspec.Struct, frozen=True):
    """One cut on one kind of device that has a helper for itself; `why_not` is empty where it fits."""

    cut: str
    seconds: float
    up_bytes: int
    down_bytes: int
    memory_mib: float
    why_not: str


class Chosen(msgspec.Struct, frozen=True):
    """So many devices of a kind with one cut at one helper, counted from 1 (0: none), and the seconds of their step."""

    cut: str
    helper: int
    devices: int
    seconds: float


class KindPlan(msgspec.Struct, frozen=True):
    """One kind of device: what it could take, what it takes, and why."""

    kind: str
    devices: int
    memory_limit_mib: int
    cuts: list[CutRow]
    chosen: list[Chosen]
    why: str


class SplitReport(msgspec.Struct, frozen=True):
    """A whole plan. `helper_busy` is the share of a mean step in which each helper computes."""

    task: str
    kinds: list[KindPlan]
    search: Literal["exact", "evolutionary", "none"]
    mean_seconds: float
    helper_busy: list[float]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A device that takes part: its kind, by number, and its options."""

    kind: int
    options: list[CutOption]


def plan_split(task: TaskDescription, fleet: PlannedFleet, how: Evolution, samples: int | None = None) -> SplitReport:
    """The plan; `samples` are stored on every device, or as many as its profile keeps.

    Raises:
        ConfigurationError: the task has no `split`.
    """
    if task.split is None:
        raise ConfigurationError(
            f"the task {task.task} has no split, so each device trains all of it; add [split] to its task.toml:"
            " docs/split-learning.md"
        )
    reference = fleet.helpers[0] if fleet.helpers else None
    tables = [cut_options(task, kind.profile, reference, samples) for kind in fleet.kinds]
    devices = [
        _Planned(number, fitting)
        for number, (kind, options) in enumerate(zip(fleet.kinds, tables, strict=True))
        if (fitting := [option for option in options if option.fits])
        for _ in range(kind.count)
    ]
    sharing = Sharing([device.options for device in devices], fleet.helpers or [1.0], reference or 1.0)
    search, plan = _searched(sharing, how)
    seconds = sharing.seconds(plan)
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    kinds = []
    for number, (kind, options) in enumerate(zip(fleet.kinds, tables, strict=True)):
        mine = [place for place, device in enumerate(devices) if device.kind == number]
        chosen = _chosen([(devices[place].options, plan[place], seconds[place]) for place in mine])
        rows = [_row(option) for option in options]
        limit = kind.profile.worker.memory_limit_mib
        kinds.append(KindPlan(kind.name, kind.count, limit, rows, chosen, _why(kind, options, chosen)))
    busy = [min(1.0, load / mean) if mean else 0.0 for load in sharing.loads(plan)] if fleet.helpers else []
    return SplitReport(task.task, kinds, search, mean, busy)


def _searched(sharing: Sharing, how: Evolution) -> tuple[Literal["exact", "evolutionary", "none"], Plan]:
    if not sharing.devices:
        return "none", ()
    if sharing.number_of_plans() <= MOST_LOOKED_AT:
        return "exact", best_of_all(sharing)
    return "evolutionary", evolve(sharing, how)


def _row(option: CutOption) -> CutRow:
    cost = option.cost
    memory = option.memory_bytes / MIB
    return CutRow(option.cut.name, cost.seconds, cost.up_bytes, cost.down_bytes, memory, option.why_not)


def _chosen(devices: Sequence[tuple[Sequence[CutOption], tuple[int, int], float]]) -> list[Chosen]:
    counts: Counter[tuple[str, int, float]] = Counter()
    for options, (number, helper), seconds in devices:
        cut = options[number].cut
        counts[cut.name, helper + 1 if cut.helper else 0, seconds] += 1
    return [Chosen(cut, helper, count, seconds) for (cut, helper, seconds), count in sorted(counts.items())]


def _why(kind: Kind, options: Sequence[CutOption], chosen: Sequence[Chosen]) -> str:
    """Why a kind takes what it takes, in words."""
    whole, *cuts = options
    taken = {each.cut for each in chosen}
    others = ", ".join(sorted(taken - {whole.cut.name}))
    if not taken:
        smallest = min(options, key=lambda option: option.memory_bytes)
        remedy = "export smaller blocks, or a smaller batch_size" if cuts else "give --helpers, or write [[helpers]]"
        return f"Nothing fits {kind.name}: {smallest.cut.name} {smallest.why_not}; {remedy}."
    if not others:
        return "The whole step fits" + ("; no cut makes the fleet's steps shorter." if cuts else ".")
    if whole.cut.name in taken:
        return f"The whole step fits, and helpers have room for some: {others} makes these steps shorter."
    return f"The whole step {whole.why_not or 'takes longer'}; of what fits, {others} makes the fleet's steps shortest."
