"""One method on one scenario: training, drawing, judging."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.classifier import Classifier, trained_on
from benchmarks.split_gans.costs import CostModel, Costs
from benchmarks.split_gans.drawing import Painter
from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.keeping import keep, run_name
from benchmarks.split_gans.method import Method
from benchmarks.split_gans.scenario import Domain, Labelled, Scenario
from benchmarks.split_gans.scores import Scores, inception_score, scores
from benchmarks.split_gans.trainee import Training
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from workbench.export.recipe.recipe import Recipe

COLLAPSED = 0.5
"""Share of its best score that a generator's falls below, where its pictures have become alike or meaningless."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is trained, and on how much is judged; a score is followed by fewer pictures."""

    iterations: int = 600
    between_federations: int = 25
    between_scores: int = 100
    drawn: int = 6000
    drawn_for_score: int = 500
    tested: int = 2000


@dataclass(frozen=True, slots=True)
class Result:
    """Of a run: `clusters` that each federation found, 0 where it did not look; seconds of this process.

    `followed` has each domain's score every `between_scores` iterations, `collapsed` the domains whose last one is a
    fall. A run whose numbers are not finite ends in the iteration `diverged`, and what the last federation left is
    judged.
    """

    method: str
    scenario: str
    training: Training
    domains: Mapping[str, Scores]
    clusters: list[int]
    followed: Mapping[str, list[float]]
    collapsed: list[str]
    diverged: int | None
    costs: Costs
    seconds_per_iteration: float


@dataclass(slots=True)
class Run:
    """What has come of a method so far; `weights` f32[P] of each participant are those of the last federation."""

    weights: Mapping[str, FloatVector]
    followed: dict[str, list[float]]
    clusters: list[int] = field(default_factory=list)
    iterations: int = 0
    diverged: int | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """The exported pair, its description with the operations of its blocks, and who judges pictures of each domain."""

    recipe: Recipe
    exported: ExportedTask
    counted: TaskDescription
    judges: Mapping[str, Classifier]
    effort: Effort
    kept: Path | None = None

    def run(self, name: str, method: Method, scenario: Scenario, training: Training) -> Result:
        """Train, draw and judge."""
        painter = Painter(self.recipe, method, scenario, training.seed)
        fleet = GanFleet(self.exported, method.participants(scenario), method.holder_of, training)
        began = time.monotonic()
        run = self._trained(fleet, painter, training.iterations)
        seconds = (time.monotonic() - began) / max(run.iterations, 1)
        if self.kept:
            keep(self.kept / run_name(name, scenario.name, training), run.weights, self.exported.task.parameters)
        found = {
            domain.name: self._judged(painter.pictures(run.weights, place, self.effort.drawn), domain, training.seed)
            for place, domain in enumerate(scenario.domains)
        }
        model = CostModel(self.counted, self.effort.between_federations, training.wire)
        return Result(
            method=name,
            scenario=scenario.name,
            training=training,
            domains=found,
            clusters=run.clusters,
            followed=run.followed,
            collapsed=[each for each, seen in run.followed.items() if seen and seen[-1] < COLLAPSED * max(seen)],
            diverged=run.diverged,
            costs=model.of(fleet.participants, method.holder_of, fleet.session_bytes),
            seconds_per_iteration=round(seconds, 3),
        )

    def _trained(self, fleet: GanFleet, painter: Painter, iterations: int) -> Run:
        run = Run(fleet.all_weights(), {domain.name: [] for domain in painter.scenario.domains})
        for iteration in range(iterations):
            if not fleet.iterate(iteration):
                run.diverged = iteration
                break
            run.iterations += 1
            number, left = divmod(run.iterations, self.effort.between_federations)
            if not left:
                run.clusters.append(painter.method.federate(fleet, number))
            if not left or run.iterations == iterations:
                weights = fleet.all_weights()
                if not all(np.isfinite(flat).all() for flat in weights.values()):
                    run.diverged = iteration
                    break
                run.weights = weights
            if run.iterations % self.effort.between_scores == 0:
                for place, domain in enumerate(painter.scenario.domains):
                    drawn = painter.pictures(run.weights, place, self.effort.drawn_for_score)
                    score = inception_score(self.judges[domain.name].shares(drawn.pictures))
                    run.followed[domain.name].append(round(score, 2))
        return run

    def _judged(self, drawn: Labelled, domain: Domain, seed: int) -> Scores:
        found = trained_on(drawn, seed).shares(domain.tested.pictures)
        return scores(found, domain.tested.classes, self.judges[domain.name].shares(drawn.pictures))
