"""What rounds of simulated devices are computed with: a training engine, and each device's samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.graph import GraphSource
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import PlanBatches, TrainingEngine, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.posterior.local import Predict
from edge_agent.training.validation import Evaluate
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTraining:
    """`count` says how many different samples a device sees, by its number; `samples` gives rows of them, int64 [N],
    and `identities` what tells these apart, uint64 [N]. `evaluate` says how a device's samples do under some weights,
    `predict` what the model says of inputs.
    """

    engine: TrainingEngine
    count: Callable[[int], int]
    samples: Callable[[int, NDArray[np.int64]], Samples]
    identities: Callable[[int, NDArray[np.int64]], NDArray[np.uint64]]
    evaluate: Evaluate
    predict: Predict
    plan: PlanBatches = plan_batches
    """Picks the batches of a round."""


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What real training is made of, in whichever process: a bundle's `files` by their names, and by device the
    `parts`, samples as training takes them, and the `told_apart`, their identities, uint64 [N].
    """

    files: Mapping[str, GraphSource]
    parts: Sequence[Samples]
    told_apart: Sequence[NDArray[np.uint64]]

    def count(self, device: int) -> int:
        """See `LocalTraining`."""
        return len(self.parts[device])

    def samples(self, device: int, rows: NDArray[np.int64]) -> Samples:
        """See `LocalTraining`."""
        return self.parts[device].take(rows)

    def identities(self, device: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """See `LocalTraining`."""
        return self.told_apart[device][rows]

    def training(self, task: TaskDescription, engine: TrainingEngine | None = None) -> LocalTraining:
        """The bundle's graphs, one thread each, on these samples; with an `engine` instead of its training graph.

        Raises:
            GraphError: this onnxruntime can't run the graphs.
        """
        runner = BundleRunner(task, self.files)
        return LocalTraining(
            engine=engine or OnnxStepEngine.of_task(task, self.files),
            count=self.count,
            samples=self.samples,
            identities=self.identities,
            evaluate=runner.evaluate_features,
            predict=runner.predict_features,
        )
