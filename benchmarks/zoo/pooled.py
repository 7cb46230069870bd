"""Pooled training, which fleets are measured against: the same model and graph, all data together, trained with care.

A tenth of the data decides on the learning rate and on when to stop; the model then trains so on all of it. What is
tested on decides nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from benchmarks.zoo.scoring import bounded
from benchmarks.zoo.tasks import Split
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from workbench.data.scale import scaled_by
from workbench.simulation.scores import scorer

LEARNING_RATES: Final = (0.1, 0.03, 0.01)
FIRST_STEPS, GROWTH = 30, 1.25
"""Each look at the validation loss comes after so many more steps; momentum begins anew, as with a device's round."""
PATIENCE = 4
"""Training ends where the best validation loss was at a quarter of the steps."""
VALIDATED_SHARE = 0.1
VALIDATION_STREAM = 6


class Pooled(msgspec.Struct, frozen=True):
    """What pooled training gives: the test `score` after `steps` with `learning_rate`."""

    score: float
    learning_rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class Look:
    """At a model in training."""

    loss: float
    learning_rate: float
    steps: int
    """So many before."""


def train_pooled(folder: Path, split: Split, steps: int) -> Pooled:
    """Train for at most `steps`. What a fleet would scale is scaled by all samples together."""
    order = np.random.default_rng(VALIDATION_STREAM).permutation(len(split.train))
    validated, rest = np.split(order, [round(VALIDATED_SHARE * len(order))])
    model = _Model(folder, split.train)
    validation = split.train.take(validated)
    looks = [
        look
        for rate in LEARNING_RATES
        for look in model.validated_looks(split.train.take(rest), validation, rate, steps)
    ]
    best = min(looks, key=lambda look: look.loss)
    *_, (_, weights) = model.training(split.train, best.learning_rate, best.steps)
    return Pooled(model.score(weights, split.test), best.learning_rate, best.steps)


class _Model:
    """A bundle's model, and its training in pieces."""

    def __init__(self, folder: Path, samples: Samples) -> None:
        bundle = load_bundle(folder)
        self._task = scaled_by(samples, bundle.description)
        files = bundle_paths(folder, self._task)
        self._engine = OnnxStepEngine.of_task(self._task, files)
        self._runner = BundleRunner(self._task, files)
        self._weights: FloatVector = read_weights(bundle.weights, self._task.parameters)

    def training(self, samples: Samples, rate: float, steps: int) -> Iterator[tuple[int, FloatVector]]:
        """The weights now and then, with the steps that led to them; the last ones after `steps`."""
        weights = self._weights
        done = 0
        while done < steps:
            count = min(max(FIRST_STEPS, round(done * (GROWTH - 1))), steps - done)
            plan = plan_batches(len(samples), count, self._task.training.batch_size, seed=done)
            weights, _ = self._engine.train(weights, samples, plan, Rates(rate))
            done += count
            yield done, weights

    def validated_looks(self, samples: Samples, validation: Samples, rate: float, steps: int) -> Iterator[Look]:
        """Until the validation loss gets no better."""
        best = Look(np.inf, rate, 0)
        for done, weights in self.training(samples, rate, steps):
            loss = self._runner.evaluate(weights, validation).loss
            if not np.isfinite(loss) or done > PATIENCE * max(best.steps, FIRST_STEPS):
                return
            look = Look(loss, rate, done)
            best = min(best, look, key=lambda look: look.loss)
            yield look

    def score(self, weights: FloatVector, test: Samples) -> float:
        """In the measure of the task's kind of label."""
        return bounded(scorer(self._runner, self._task, test).score(weights))
