"""From a fleet and a task to a plan: the table of every cut for every kind, and what is chosen and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from fleet_protocol.task_description import TaskDescription
from workbench.split_planning.cut_options import CutOption, cut_options
from workbench.split_planning.evolution import Evolution
from workbench.split_planning.planned_fleet import Kind, PlannedFleet
from workbench.split_planning.round_ends import middle_round_end
from workbench.split_planning.searches import Found, FrontPoint, front, search_plan
from workbench.split_planning.shared_helpers import Group, Plan, PlanCost, Sharing


class CutRow(msgspec.Struct, frozen=True):
    """One cut on one kind of device that has a helper for itself; `why_not` is empty where it fits.

    Seconds and bytes are of a step. `round_up_bytes` and `round_down_bytes` are an update's and a version's, once a
    round; each step has its share of their seconds.
    """

    cut: str
    seconds: float
    up_bytes: int
    down_bytes: int
    round_up_bytes: int
    round_down_bytes: int
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
    """A whole plan: means over devices of a step's seconds and bytes. `helper_busy` is the share of the time in which
    each helper computes. What each search found has the plan first; nothing is there where no device takes part.
    """

    task: str
    kinds: list[KindPlan]
    found: list[Found]
    mean_seconds: float
    mean_bytes: float
    helper_busy: list[float]
    front: list[FrontPoint]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to plan: what is searched, `samples` that are stored on every device (None: as many as its profile keeps),
    how many seconds of a step a megabyte is worth, and whether the front is asked for.
    """

    how: Evolution
    samples: int | None = None
    seconds_per_mb: float = 0.0
    front: bool = False


def plan_split(task: TaskDescription, fleet: PlannedFleet, wanted: Wanted) -> SplitReport:
    """The plan.

    Raises:
        ConfigurationError: the task has no `split`.
    """
    if task.split is None:
        raise ConfigurationError(
            f"the task {task.task} has no split, so each device trains all of it; add [split] to its task.toml:"
            " docs/split-learning.md"
        )
    tables = [cut_options(task, kind.profile, fleet.helpers, wanted.samples) for kind in fleet.kinds]
    fitting = [[option for option in options if option.fits] for options in tables]
    taking_part = [number for number, options in enumerate(fitting) if options]
    groups = [Group(fitting[number], fleet.kinds[number].count) for number in taking_part]
    sharing = Sharing(groups, fleet.helpers, partial(middle_round_end, task), wanted.seconds_per_mb / 1e6)
    searched = search_plan(sharing, wanted.how) if groups else None
    cost = sharing.cost(sharing.shares(searched.plan)) if searched else PlanCost(0.0, 0.0, {}, [])
    kinds = []
    for number, (kind, options) in enumerate(zip(fleet.kinds, tables, strict=True)):
        group = taking_part.index(number) if number in taking_part else None
        chosen = _chosen(sharing, group, searched.plan, cost) if searched and group is not None else []
        limit = kind.profile.worker.memory_limit_mib
        rows = [_row(option) for option in options]
        kinds.append(KindPlan(kind.name, kind.count, limit, rows, chosen, _why(kind, options, chosen)))
    found = searched.found if searched else []
    points = front(sharing) if searched and wanted.front else []
    return SplitReport(task.task, kinds, found, cost.seconds, cost.step_bytes, list(cost.busy), points)


def _row(option: CutOption) -> CutRow:
    cost, end = option.costs[0], option.round_end
    return CutRow(
        cut=option.cut.name,
        seconds=option.seconds,
        up_bytes=cost.up_bytes,
        down_bytes=cost.down_bytes,
        round_up_bytes=end.up_bytes,
        round_down_bytes=end.down_bytes,
        memory_mib=option.memory_bytes / MIB,
        why_not=option.why_not,
    )


def _chosen(sharing: Sharing, group: int, plan: Plan, cost: PlanCost) -> list[Chosen]:
    """What the devices of a group take."""
    options, found = sharing.groups[group].options, []
    for (owner, (number, helper)), count in sharing.shares(plan):
        if owner == group:
            cut = options[number].cut
            seconds = cost.share_seconds[owner, (number, helper)]
            found.append(Chosen(cut.name, helper + 1 if cut.helper else 0, count, seconds))
    return sorted(found, key=lambda each: (each.cut, each.helper))


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
        return "The whole step fits" + ("; no cut is better for the fleet." if cuts else ".")
    if whole.cut.name in taken:
        return f"The whole step fits, and helpers have room for some: {others} is better there."
    return f"The whole step {whole.why_not or 'takes longer'}; of what fits, {others} is best for the fleet."
