"""One method on one scenario: training, drawing, judging."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.classifier import Classifier, trained_on
from benchmarks.split_gans.drawing import draw
from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.method import Method
from benchmarks.split_gans.scenario import CLASSES, Domain, Labelled, Scenario
from benchmarks.split_gans.scores import Scores, scores
from workbench.export.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is trained, and on how much is judged."""

    iterations: int = 600
    between_federations: int = 25
    drawn: int = 6000
    tested: int = 2000


@dataclass(frozen=True, slots=True)
class Result:
    """Of a run: `clusters` that each federation found, 0 where it did not look; seconds of this process."""

    method: str
    scenario: str
    seed: int
    learning_rate: float
    domains: Mapping[str, Scores]
    clusters: list[int]
    seconds_per_iteration: float


@dataclass(frozen=True, slots=True)
class Contest:
    """The exported pair, and by whom pictures of each domain are judged."""

    recipe: Recipe
    exported: ExportedTask
    judges: Mapping[str, Classifier]
    effort: Effort

    def run(self, name: str, method: Method, scenario: Scenario, *, learning_rate: float, seed: int) -> Result:
        """Train, draw and judge."""
        fleet = GanFleet(
            self.exported,
            method.participants(scenario),
            method.holder_of,
            iterations=self.effort.iterations,
            learning_rate=learning_rate,
            seed=seed,
        )
        began, clusters = time.monotonic(), []
        for iteration in range(self.effort.iterations):
            fleet.iterate(iteration)
            number, left = divmod(iteration + 1, self.effort.between_federations)
            if not left:
                clusters.append(method.federate(fleet, number))
        seconds = (time.monotonic() - began) / self.effort.iterations
        found = {}
        for place, domain in enumerate(scenario.domains):
            drawn = self._drawn(fleet, method, domain, method.class_offset(place), seed)
            found[domain.name] = self._judged(drawn, domain, seed)
        return Result(name, scenario.name, seed, learning_rate, found, clusters, round(seconds, 3))

    def _drawn(self, fleet: GanFleet, method: Method, domain: Domain, offset: int, seed: int) -> Labelled:
        """Even parts by each participant of the domain, of every class alike."""
        drawing = [each for each in fleet.participants if each.draws(domain)]
        classes = np.arange(self.effort.drawn // len(drawing)) % CLASSES
        parts = [
            draw(self.recipe, fleet.weights_of(each), classes, offset, seed * 1000 + number)
            for number, each in enumerate(drawing)
        ]
        return Labelled(
            np.concatenate([part.pictures for part in parts]), np.concatenate([part.classes for part in parts])
        )

    def _judged(self, drawn: Labelled, domain: Domain, seed: int) -> Scores:
        found = trained_on(drawn, seed).shares(domain.tested.pictures)
        return scores(found, domain.tested.classes, self.judges[domain.name].shares(drawn.pictures))
