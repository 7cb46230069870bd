"""What a round makes of a cavity and a device's samples: variational inference with natural gradients. Pure.

With N samples of mean loss L, and weights drawn from the Gaussian of mean m and precision p, all precisions real ones:

    precision of the factor = N * E[diagonal of the Gauss-Newton matrix of L]
    m = m - learning rate * (N * gradient of L at the drawn weights + cavity precision * (m - cavity mean)) / p

as in VON and IVON (Khan et al. 2018, equation 6; Shen et al. 2024, algorithm 1). The diagonal is estimated with labels
drawn from the model's own predictions: rows * gradient^2 of the mean over a batch of so many rows has its expectation
(Gauss-Newton-Bartlett: Liu et al. 2023, "Sophia", algorithm 2), whatever the samples' own labels are, and is never
negative. Both gradients come from single steps of the training graph at learning rate 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.engine import BatchPlan, OnProgress, Rates
from edge_agent.training.personal.steps import Steps
from edge_agent.training.posterior.natural import Natural, Vector
from edge_agent.training.posterior.own_labels import own_labels
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sample_schema import LabelSchema

Predict = Callable[[FloatVector, NDArray[np.float32]], NDArray[np.float32]]
"""Scores f32[N, ...] of inputs as training takes them, by the model with these weights f32[P]."""

AS_GRADIENT = Rates(learning_rate=1.0)
MOST_BATCHES = 16
"""That precisions are estimated on in a round: damping takes the mean over rounds."""


def curvature(
    steps: Steps,
    at: Natural,
    label: LabelSchema,
    prior: Vector,
    *,
    predict: Predict,
    generator: np.random.Generator,
) -> Vector:
    """The precision f64[P] of the device's factor, in precisions of the prior, whose deviations are `prior` f64[P]: the
    mean of the estimates of the first batches, each at weights drawn from the Gaussian `at`.

    Raises:
        EngineError, GraphError: bundle and samples contradict each other.
    """
    mean, deviation = at.mean, at.deviation(prior)
    squares = np.zeros(mean.size)
    count = min(steps.count, MOST_BATCHES)
    for number in range(count):
        weights = (mean + deviation * generator.standard_normal(mean.size)).astype(np.float32)
        rows = steps.batches.rows[number][steps.batches.mask[number] > 0]
        batch = steps.samples.take(rows)
        drawn = own_labels(predict(weights, batch.inputs), label, generator)
        places = np.zeros_like(steps.batches.rows[:1])
        places[0, : rows.size] = np.arange(rows.size)
        alone = BatchPlan(places, _first(rows.size, places.shape[1]), steps.batches.seed + number)
        gradient, _ = _gradient(replace(steps, samples=replace(batch, labels=drawn), batches=alone), weights, 0)
        squares += rows.size * np.square(gradient)
    return len(steps.samples) * prior**2 * squares / count


@dataclass(frozen=True, slots=True)
class MeanSteps:
    """Steps of the mean towards that of the local posterior, whose precision is known: that of the `cavity` and the
    factor's `curvature` f64[P]. `prior` are the deviations of the prior, f64[P].
    """

    cavity: Natural
    curvature: Vector
    prior: Vector
    generator: np.random.Generator

    def train(self, steps: Steps, begin: FloatVector, on_progress: OnProgress) -> tuple[FloatVector, FloatVector]:
        """The mean f32[P] behind all steps from `begin`, and the loss of each.

        Raises:
            EngineError: bundle and samples contradict each other.
        """
        precision = self.cavity.precision + self.curvature
        deviation = self.prior / np.sqrt(precision)
        samples = len(steps.samples) * self.prior**2
        mean, centre = begin.astype(np.float64), self.cavity.mean
        losses = np.empty(steps.count, np.float32)
        for number in range(steps.count):
            weights = (mean + deviation * self.generator.standard_normal(mean.size)).astype(np.float32)
            gradient, losses[number] = _gradient(steps, weights, number)
            uphill = samples * gradient + self.cavity.precision * (mean - centre)
            mean = mean - steps.rates.learning_rate * uphill / precision
        on_progress(steps.count, losses)
        return mean.astype(np.float32), losses


def _gradient(steps: Steps, weights: FloatVector, number: int) -> tuple[Vector, np.float32]:
    """Of the mean loss of a batch, f64[P], and that loss."""
    after, loss = replace(steps, rates=AS_GRADIENT).one(weights, number)
    return weights.astype(np.float64) - after, loss


def _first(count: int, size: int) -> NDArray[np.float32]:
    """The mask f32[1, size] of a batch of so many rows."""
    return (np.arange(size) < count).astype(np.float32)[np.newaxis]
