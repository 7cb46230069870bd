"""Partitioned variational inference against a closed form: linear regression with a Gaussian of independent weights.

With a prior of precision a on every weight and noise of variance 1/2 (the loss is a squared difference), the Gaussian
of independent weights that is nearest to the true posterior, in the KL divergence that variational inference minimises,
has the true posterior's mean and the diagonal of its precision matrix:

    precision = a + sum over all samples of 2 x^2,    mean = (a I + 2 X^T X)^-1 2 X^T y    (the prior's mean is 0)
"""

from dataclasses import dataclass

import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.runner import Evaluation
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, OnProgress, Rates, ignore_progress
from edge_agent.training.own_limits import take_part
from edge_agent.training.posterior.natural import Natural
from edge_agent.training.round import Earlier
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import decode_update, with_copies
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.parameter import Parameter
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan

FEATURES = 4
PRIOR = 0.5
PLAN = PosteriorPlan(prior_deviation=PRIOR * FEATURES**0.5, damping=0.3, step=0.1)
"""A weight sums so many inputs."""
TASK = TaskDescription(
    1,
    "line",
    "A line through points",
    InputSchema([FEATURES], -10, 10),
    LabelSchema(kind="regression", values=1),
    [Parameter("weight", [1, FEATURES])],
    TrainingPlan(steps=20, batch_size=10, optimiser="sgd", learning_rate=0.1, epochs_per_round=0, maximum_epochs=0),
    UpdatePlan(1.0, quantisation="float32", selection="dense", feedback="ef21"),
    AggregationPlan(buffer_size=1, strategy="posterior"),
    {},
    posterior=PLAN,
)


@dataclass
class Line:
    """A training graph in numpy: y = x w, and the mean of squared differences."""

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        losses = []
        for rows, mask in zip(plan.rows, plan.mask, strict=True):
            inputs = samples.inputs[rows[mask > 0]].astype(np.float64)
            off = inputs @ weights - samples.labels[rows[mask > 0]].ravel()
            losses.append((off**2).mean())
            weights = (weights - rates.learning_rate * 2 * inputs.T @ off / len(off)).astype(np.float32)
        return weights, np.array(losses, np.float32)


def predict(weights: FloatVector, inputs: np.ndarray) -> np.ndarray:
    return (inputs @ weights)[:, np.newaxis]


def nothing_is_validated(_weights: FloatVector, _samples: Samples) -> Evaluation:
    raise AssertionError("no samples are kept for validation")


def points_of(device: int, count: int) -> StoredSamples:
    """Correlated features, and others for each device."""
    generator = np.random.default_rng(device)
    inputs = generator.normal(0, 1, (count, FEATURES)) + 0.7 * generator.normal(0, 1, (count, 1))
    inputs[:, device] *= 2
    labels = inputs @ np.array([1.0, -0.5, 0.25, 0.0]) + np.sqrt(0.5) * generator.normal(0, 1, count)
    samples = Samples(inputs.astype(np.float32), labels.astype(np.float32)[:, np.newaxis], count)
    return StoredSamples(samples, samples.take(slice(0)), count, count)


@dataclass
class Pooled:
    devices: list[StoredSamples]

    @property
    def precision_matrix(self) -> np.ndarray:
        inputs = np.concatenate([each.training.inputs for each in self.devices]).astype(np.float64)
        return np.eye(FEATURES) / PRIOR**2 + 2 * inputs.T @ inputs

    @property
    def mean(self) -> np.ndarray:
        weighted = sum(2 * each.training.inputs.T.astype(np.float64) @ each.training.labels for each in self.devices)
        return np.linalg.solve(self.precision_matrix, weighted).ravel()


def federated(devices: list[StoredSamples], rounds: int) -> tuple[list[Natural], list[np.ndarray]]:
    """The Gaussian of every version, and the factors that devices have in the end."""
    state = initial_state(with_copies(np.zeros(FEATURES, np.float32), TASK), TASK.aggregation)
    residuals, versions = [b""] * len(devices), []
    for number in range(rounds):
        for device, stored in enumerate(devices):
            earlier = Earlier(residuals[device], (), seed=number, life=device + 1)
            made = take_part(
                Line(), state.weights, stored, TASK, earlier, evaluate=nothing_is_validated, predict=predict
            )
            assert isinstance(made, TrainingResult)
            residuals[device] = made.residual
            delta = decode_update(made.packed, TASK.trained_shapes)
            update = BufferedUpdate(f"pi-{device}", delta, made.samples, state.version, 0, made.life)
            state = next_state(state, [update], TASK.aggregation)
        versions.append(Natural.of_version(*np.split(state.weights, 2), np.full(FEATURES, PRIOR)))
    return versions, [np.frombuffer(each[8:], np.float64) for each in residuals]


def test_factors_of_two_devices_add_up_to_the_pooled_posterior() -> None:
    """Means within a sixth of a posterior deviation, precisions within 6 %: weights and labels are drawn."""
    devices = [points_of(0, 60), points_of(1, 30)]
    versions, factors = federated(devices, rounds=160)
    pooled = Pooled(devices)
    steady = versions[-120:]
    precision = np.mean([each.precision for each in steady], axis=0) / PRIOR**2
    np.testing.assert_allclose(precision, np.diag(pooled.precision_matrix), rtol=0.06)
    deviations = 1 / np.sqrt(np.diag(pooled.precision_matrix))
    off = (np.mean([each.mean for each in steady], axis=0) - pooled.mean) / deviations
    assert np.abs(off).max() < 1 / 6, off
    whole = versions[-1].told(np.full(FEATURES, PRIOR))
    prior = np.concatenate([np.zeros(FEATURES), np.full(FEATURES, PRIOR)])
    np.testing.assert_allclose(sum(factors) + prior, whole, rtol=1e-5, atol=1e-5)
