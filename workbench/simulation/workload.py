"""What a simulated fleet learns: real training on real samples, or a substitute that costs microseconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import BundleRunner, Evaluation, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, OnProgress, Rates, ignore_progress
from edge_agent.training.private.engine import PrivateEngine
from edge_agent.training.stored_samples import identities
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.local_training import Ingredients, LocalTraining
from workbench.simulation.scores import scorer

SYNTHETIC_SAMPLES = 64
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
"""As a share of 2**64, whose multiples are evenly spread (Knuth, The Art of Computer Programming 3, 6.4)."""
NOISE_SEED = 4
DIFFERENT_OPTIMA = 1 << 20
DISAGREEMENT = 0.5
"""How far a device's own optimum lies from the fleet's, as a share of the way from version 0 to the fleet's."""

NO_PREDICTIONS = "[posterior] draws labels from predictions, and the synthetic task has none; add --data"
"""Of a simulation without samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(LocalTraining):
    """`score` is how good some weights are, 1 is best; `measure` is what it is called, `one_answer` what the best one
    answer to all samples scores, where that is known. `rescaled` gives the workload of
    the same task with its scale. `made_of` is what another process trains with; None where nothing real learns.
    """

    score: Callable[[FloatVector], float]
    measure: str
    rescaled: Callable[[TaskDescription], "Workload"]
    heads: Callable[[FloatVector], dict[str, float]] = lambda _: {}
    """The scores of each head, by what they are called, where there are several."""
    one_answer: float | None = None
    made_of: Ingredients | None = None


@dataclass(frozen=True, slots=True)
class AlikeSamples(Samples):
    """Samples that are all the same but for their labels: `inputs` is one of them, broadcast."""

    def take(self, rows: NDArray[np.int64] | slice) -> "AlikeSamples":
        """See `Samples.take`; nothing is copied."""
        labels = self.labels[rows]
        inputs = self.inputs[: len(labels)]
        if len(inputs) < len(labels):
            inputs = np.broadcast_to(self.inputs[:1], (len(labels), *self.inputs.shape[1:]))
        return AlikeSamples(inputs, labels, self.newest)


def _alike(sample: FloatVector, count: int) -> AlikeSamples:
    """So many of one sample. `np.broadcast_to` takes several times as long."""
    inputs = np.ndarray((count, sample.size), np.float32, sample, strides=(0, sample.itemsize))
    return AlikeSamples(inputs, _no_labels(count))


@lru_cache(64)
def _no_labels(count: int) -> NDArray[np.int64]:
    labels = np.zeros(count, np.int64)
    labels.flags.writeable = False
    return labels


@lru_cache(64)
def first_sample_batches(sample_count: int, steps: int, batch_size: int) -> BatchPlan:
    """A plan of samples that are all alike: every row is the first one's."""
    mask = np.zeros((steps, batch_size), np.float32)
    mask[:, : min(batch_size, sample_count)] = 1.0
    return BatchPlan(np.zeros((steps, batch_size), np.int64), mask, seed=0)


@lru_cache(64)
def _shrinking(learning_rate: float, steps: int) -> FloatVector:
    """How much of the distance is left after each step, as a share, float32 [steps + 1]."""
    with np.errstate(over="ignore"):  # a learning rate that diverges does so here too
        left: FloatVector = np.float32(1 - learning_rate) ** np.arange(steps + 1, dtype=np.float32)
    return left


def _loss(distance: FloatVector) -> np.float32:
    """Half the mean of the squares, per weight. `np.mean` takes longer than all the rest on so few values."""
    return np.float32(0.5) * np.float32(float(np.add.reduce(np.square(distance))) / distance.size)


class QuadraticEngine:
    """Gradient descent on half the squared distance from a device's own optimum, which is every row of its inputs,
    float32 [N, P].

    All steps at once: each brings the weights nearer by the factor 1 - learning_rate.
    """

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        """See `TrainingEngine.train`; the loss is per weight, and `on_progress` is called once."""
        steps = len(plan.rows)
        optimum = samples.inputs[0]
        with np.errstate(over="ignore"):
            shrinking = _shrinking(rates.learning_rate, steps)
            distance = weights - optimum
            losses: FloatVector = _loss(distance) * np.square(shrinking[:-1])
        on_progress(steps, losses)
        return optimum + shrinking[-1] * distance, losses


def synthetic_workload(initial: FloatVector, seed: int) -> Workload:
    """Each of the first `DIFFERENT_OPTIMA` devices has its own optimum near a common one, and the next ones have these
    again; the score is the fraction of the distance covered towards the common one. Where a device's own optimum lies
    from the common one is a window on one long row of random numbers: two of them have nothing in common but by chance.

    The way is about as long as the initial weights, as training's is. A score can be negative: further off than
    version 0 was.
    """
    size = initial.size
    magnitude = np.float32(np.linalg.norm(initial) / np.sqrt(size) or 1.0)
    way = magnitude * np.random.default_rng((seed, 0)).standard_normal(size, dtype=np.float32)
    optimum = initial + way

    noise = np.random.default_rng((seed, 1)).standard_normal(DIFFERENT_OPTIMA + size, dtype=np.float32)
    disagreement = np.float32(DISAGREEMENT) * magnitude * noise

    def samples(device: int, rows: NDArray[np.int64]) -> Samples:
        place = device % DIFFERENT_OPTIMA
        return _alike(optimum + disagreement[place : place + size], rows.size)

    workload = Workload(
        engine=QuadraticEngine(),
        count=lambda _: SYNTHETIC_SAMPLES,
        samples=samples,
        identities=lambda _, rows: rows.astype(np.uint64) * GOLDEN_RATIO,
        evaluate=_evaluate_distance,
        predict=_predict_nothing,
        score=lambda weights: float(1 - np.linalg.norm(optimum.astype(np.float64) - weights) / np.linalg.norm(way)),
        measure="share of the way to the optimum",
        rescaled=lambda _: workload,
        plan=lambda samples, steps, batch_size, _: first_sample_batches(samples, steps, batch_size),
    )
    return workload


def _evaluate_distance(weights: FloatVector, samples: Samples) -> Evaluation:
    """The loss of `QuadraticEngine`: every sample of a device is its optimum."""
    loss = _loss(weights - samples.inputs[0])
    return Evaluation(np.full(len(samples), loss), None)


def _predict_nothing(_weights: FloatVector, _inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    raise ConfigurationError(NO_PREDICTIONS)


def trained_workload(bundle: Path, task: TaskDescription, parts: Sequence[Samples], held_out: Samples) -> Workload:
    """The bundle's own graphs in this process, one thread each; a device's samples are the part of its number.

    The backbone, where there is one, sees every sample once. The score is taken on `held_out`.

    Raises:
        ConfigurationError: this onnxruntime can't run the graphs, they don't take the samples, or those held out are
            all alike.
    """
    files = bundle_paths(bundle, task)
    runner = BundleRunner(task, files)
    trained_on = [runner.featured(part) for part in parts]
    made_of = Ingredients(files, trained_on, [identities(part) for part in trained_on])
    found = scorer(runner, task, runner.featured(held_out))
    private = None
    if task.sample_privacy is not None:  # noise from a seed: a simulation repeats itself, and hides nobody
        private = PrivateEngine(task, files, draw=np.random.default_rng(NOISE_SEED).bytes)
    training = made_of.training(task, private)
    return Workload(
        **{each.name: getattr(training, each.name) for each in fields(training)},
        score=found.score,
        measure=found.measure,
        rescaled=lambda rescaled: trained_workload(bundle, rescaled, parts, held_out),
        heads=found.of_heads,
        one_answer=found.one_answer,
        made_of=made_of,
    )
