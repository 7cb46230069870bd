"""Trains a task's model on synthesised data, with the same ONNX step that its devices train with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bundle_runtime.bundle import Bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine, is_divisible
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.data_folder import Part
from prompt_synthesis.generator import Synthetic

OnSteps = Callable[[int], None]
"""Called with how many steps are done."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights f32[P], and the loss of the first and of the last epoch."""

    weights: FloatVector
    first_loss: float
    last_loss: float


class SyntheticTrainer:
    """Of one bundle; `threads` is of the computation.

    Raises:
        GraphError: a graph can't be loaded.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._task = bundle.description
        self._runner = BundleRunner(self._task, bundle.files, threads)
        divisible = is_divisible(self._task.training)
        self._engine = OnnxStepEngine.of_task(self._task, bundle.files, threads, divisible=divisible)

    def samples(self, parts: Iterable[Part]) -> Samples:
        """All data of the parts as training takes it; there is some. Sound and pictures go through the backbone part by
        part, so that memory holds their features alone.
        """
        made = [(self._featured(part.data), part.data.labels) for part in parts if part.data is not None]
        return Samples(np.concatenate([inputs for inputs, _ in made]), np.concatenate([labels for _, labels in made]))

    def _featured(self, data: Synthetic) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return data.inputs if data.features else self._runner.features(data.inputs)

    def steps(self, samples: Samples, epochs: float) -> int:
        """How many steps go over the samples so often."""
        return max(1, round(epochs * len(samples) / self._task.training.batch_size))

    def train(self, weights: FloatVector, samples: Samples, epochs: float, seed: int, on_steps: OnSteps) -> Trained:
        """Train from `weights` f32[P], at the rates that the task's devices have.

        Raises:
            ConfigurationError: the loss or the weights are no longer finite.
        """
        plan = plan_batches(len(samples), self.steps(samples, epochs), self._task.training.batch_size, seed)
        rates = Rates.planned(self._task.training)
        trained, losses = self._engine.train(weights, samples, plan, rates, lambda done, _: on_steps(done))
        if not (np.isfinite(trained).all() and np.isfinite(losses).all()):
            raise ConfigurationError(
                f"training {self._task.task} on synthetic data diverged in {len(losses)} steps; nothing is published:"
                " lower training.learning_rate, or set gradient_clip"
            )
        tenth = max(1, len(losses) // 10)
        return Trained(trained, float(losses[:tenth].mean()), float(losses[-tenth:].mean()))

    def accuracy(self, weights: FloatVector, samples: Samples) -> float | None:
        """The share of right answers on the samples, which training has seen."""
        return self._runner.evaluate_features(weights, samples).accuracy
