"""What a round makes of a cavity and a device's samples: variational inference with natural gradients. Pure.

With N samples of mean loss L, and weights drawn from the Gaussian of mean m and precision p, all precisions real ones:

    precision of the factor = N * E[diagonal of the Gauss-Newton matrix of L]
    m = m - learning rate * (N * gradient of L at the drawn weights + cavity precision * (m - cavity mean)) / p

as in VON and IVON (Khan et al. 2018, equation 6; Shen et al. 2024, algorithm 1). Weights that have no Gaussian take
plain steps of the task's learning rate meanwhile, on the loss at the drawn weights. The diagonal is estimated with
labels drawn from the model's own predictions: rows * gradient^2 of the mean over a batch of so many rows has its
expectation (Gauss-Newton-Bartlett: Liu et al. 2023, "Sophia", algorithm 2), whatever the samples' own labels are, and
is never negative. Both gradients come from single steps of the training graph at learning rate 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.engine import BatchPlan, OnProgress, Rates
from edge_agent.training.personal.steps import Steps
from edge_agent.training.posterior.natural import Natural, Vector
from edge_agent.training.posterior.own_labels import own_labels
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.sample_schema import LabelSchema

Predict = Callable[[FloatVector, NDArray[np.float32]], NDArray[np.float32]]
"""Scores f32[N, ...] of inputs as training takes them, by the model with these weights f32[P]."""

AS_GRADIENT = Rates(learning_rate=1.0)
MOST_BATCHES = 16
"""That precisions are estimated on in a round: damping takes the mean over rounds."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The weights of a model that have a Gaussian: their `places` int64[H] among all, f32[P], and the standard
    deviations of the prior, `prior` f64[H].
    """

    places: IndexVector
    prior: Vector

    def at(self, weights: FloatVector | Vector, values: Vector) -> FloatVector:
        """All weights, with `values` f64[H] in these places."""
        model = weights.astype(np.float32)
        model[self.places] = values
        return model


def curvature(
    steps: Steps,
    weights: FloatVector,
    at: Natural,
    label: LabelSchema,
    drawn: Drawn,
    *,
    predict: Predict,
    generator: np.random.Generator,
) -> Vector:
    """The precision f64[H] of the device's factor, in precisions of the prior: the mean of the estimates of the first
    batches, each at weights drawn from the Gaussian `at`, and the others of `weights` f32[P].

    Raises:
        EngineError, GraphError: bundle and samples contradict each other.
    """
    mean, deviation = at.mean, at.deviation(drawn.prior)
    squares = np.zeros(mean.size)
    count = min(steps.count, MOST_BATCHES)
    for number in range(count):
        model = drawn.at(weights, mean + deviation * generator.standard_normal(mean.size))
        rows = steps.batches.rows[number][steps.batches.mask[number] > 0]
        batch = steps.samples.take(rows)
        labels = own_labels(predict(model, batch.inputs), label, generator)
        places = np.zeros_like(steps.batches.rows[:1])
        places[0, : rows.size] = np.arange(rows.size)
        alone = BatchPlan(places, _first(rows.size, places.shape[1]), steps.batches.seed + number)
        gradient, _ = _gradient(replace(steps, samples=replace(batch, labels=labels), batches=alone), model, 0)
        squares += rows.size * np.square(gradient[drawn.places])
    return len(steps.samples) * drawn.prior**2 * squares / count


@dataclass(frozen=True, slots=True)
class LocalSteps:
    """Steps of the mean towards that of the local posterior, whose precision is known: that of the `cavity` and the
    factor's `curvature` f64[H]; each takes the part `rate` of the way. The other weights take plain ones.
    """

    cavity: Natural
    curvature: Vector
    drawn: Drawn
    rate: float
    generator: np.random.Generator

    def train(self, steps: Steps, begin: FloatVector, on_progress: OnProgress) -> tuple[FloatVector, FloatVector]:
        """The model f32[P] behind all steps from `begin`, with means where weights are drawn; and the loss of each.

        Raises:
            EngineError: bundle and samples contradict each other.
        """
        precision, places = self.cavity.precision + self.curvature, self.drawn.places
        deviation = self.drawn.prior / np.sqrt(precision)
        samples = len(steps.samples) * self.drawn.prior**2
        weights = begin.astype(np.float64)
        mean, centre = weights[places], self.cavity.mean
        losses = np.empty(steps.count, np.float32)
        for number in range(steps.count):
            model = self.drawn.at(weights, mean + deviation * self.generator.standard_normal(mean.size))
            gradient, losses[number] = _gradient(steps, model, number)
            uphill = samples * gradient[places] + self.cavity.precision * (mean - centre)
            mean = mean - self.rate * uphill / precision
            weights -= steps.rates.learning_rate * gradient
        on_progress(steps.count, losses)
        return self.drawn.at(weights, mean), losses


def _gradient(steps: Steps, weights: FloatVector, number: int) -> tuple[Vector, np.float32]:
    """Of the mean loss of a batch, f64[P], and that loss."""
    after, loss = replace(steps, rates=AS_GRADIENT).one(weights, number)
    return weights.astype(np.float64) - after, loss


def _first(count: int, size: int) -> NDArray[np.float32]:
    """The mask f32[1, size] of a batch of so many rows."""
    return (np.arange(size) < count).astype(np.float32)[np.newaxis]
