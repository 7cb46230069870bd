"""One case of the zoo: a fleet in virtual time that really trains, and what became of it."""

import math
import time
from pathlib import Path

import msgspec

from benchmarks.zoo.partitions import PartitionName, shares
from benchmarks.zoo.pooled import Pooled
from benchmarks.zoo.scoring import bounded, collapsed, gap
from benchmarks.zoo.tasks import Split
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.core.triggers import TriggerSettings
from edge_agent.profiles import read_profile
from workbench.simulation.conditions import DAY_SECONDS
from workbench.simulation.fleet_files import draw_fleet
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.workload import trained_workload

PROFILE = "pi-4"
USUAL_UPDATES = 1_000
"""What a fleet is given time for. Each device makes some in any case, as it is a day at least."""
SCORES = 40
"""About so many in a case."""


class Case(msgspec.Struct, frozen=True):
    """`devices` are those asked for; a fleet is smaller where there are too few samples. `without` names the rule that
    is left out, if any.
    """

    task: str
    partition: PartitionName
    devices: int
    seed: int
    without: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.task}/{self.partition}/{self.devices}/{self.seed}" + f" without {self.without}" * bool(
            self.without
        )

    @property
    def whole(self) -> "Case":
        """The same with all rules."""
        return msgspec.structs.replace(self, without="")


class Outcome(msgspec.Struct, frozen=True):
    """What became of a case. `final` and `best` are the fleet's scores in `measure`, `gap` is to `pooled`, in points.

    `refused` counts the coordinator's refusals and `diverged` the devices' lost rounds, each with the words that were
    given first; `alarms`, how often the coordinator went back to a good version. `fingerprint` is of what the case was
    run with, `origin` its date and commit for people.
    """

    case: Case
    fingerprint: str
    origin: str
    measure: str
    devices: int
    days: float
    updates: int
    versions: int
    pooled: Pooled
    first: float
    best: float
    final: float
    gap: float
    collapsed: bool
    refused: int
    diverged: int
    alarms: int
    words: list[str]
    uplink_bytes: int
    cpu_seconds: float
    scores: list[float]


class Length(msgspec.Struct, frozen=True):
    """How long fleets live: at most `updates`, and `days` of virtual time; left out, as many as that takes."""

    days: float | None = None
    updates: int | None = None

    def days_of(self, devices: int) -> float:
        """Of a fleet of that size."""
        return self.days or math.ceil((self.updates or USUAL_UPDATES) / (devices * _rounds_a_day()))

    def updates_of(self, devices: int) -> int:
        """About so many are made."""
        made = round(self.days_of(devices) * devices * _rounds_a_day())
        return min(made, self.updates or made)


def run_case(case: Case, folder: Path, split: Split, length: Length) -> tuple[Result, float]:
    """Simulate the fleet on the bundle in `folder`; also gives the seconds that it took of one core."""
    started = time.process_time()
    bundle = load_bundle(folder)
    task = bundle.description
    parts = shares(split.train, task.label.kind, case.partition, case.devices, case.seed)
    options = Options(
        seed=case.seed,
        seconds=length.days_of(len(parts)) * DAY_SECONDS,
        updates=length.updates,
        score_every=max(1, length.updates_of(len(parts)) // SCORES),
    )
    fleet = draw_fleet([read_profile(PROFILE)], len(parts), case.seed)
    workload = trained_workload(folder, task, parts, split.test)
    result = Simulation(fleet, bundle, workload, options).run()
    return result, time.process_time() - started


def outcome_of(
    case: Case, result: Result, pooled: Pooled, *, fingerprint: str, origin: str, cpu_seconds: float
) -> Outcome:
    """What a case came to."""
    summary = result.summary
    scores = [round(bounded(point.score), 4) for point in result.history]
    refused = list(summary.refused.values())
    diverged = summary.rounds_diverged
    return Outcome(
        case=case,
        fingerprint=fingerprint,
        origin=origin,
        measure=summary.measure,
        devices=summary.devices,
        days=round(summary.virtual_seconds / DAY_SECONDS, 2),
        updates=summary.updates,
        versions=summary.versions,
        pooled=pooled,
        first=scores[0],
        best=max(scores),
        final=scores[-1],
        gap=round(gap(pooled.score, scores[-1]), 2),
        collapsed=collapsed(scores),
        refused=sum(count.times for count in refused),
        diverged=diverged.times,
        alarms=summary.collapses,
        words=[count.words for count in (*refused, diverged) if count],
        uplink_bytes=summary.uplink_bytes,
        cpu_seconds=round(cpu_seconds, 2),
        scores=scores,
    )


def _rounds_a_day() -> float:
    return 24 * read_profile(PROFILE).simulation.samples_per_hour / TriggerSettings().new_samples
