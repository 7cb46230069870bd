"""The default engine: the bundle's plain ONNX training graph on the stock onnxruntime."""

import time
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.graph import Graph, GraphSource
from bundle_runtime.samples import Samples
from bundle_runtime.scale_feeds import scale_feeds
from edge_agent.training.engine import REPORT_SECONDS, BatchPlan, EngineError, OnProgress, Rates, ignore_progress
from fleet_protocol.bundle_files import TRAIN_FILE
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan

CORRECTION = "correction"
"""The input that is added to each gradient."""
FIRST_STEPS = 8
"""Enough to measure the pace; the extra call costs some ten microseconds."""


def is_divisible(plan: TrainingPlan) -> bool:
    """Whether steps may be split over several calls: nothing goes from one to the next but the weights.

    The graph starts its optimiser from zero in every call, and takes the weights at its start for the ones that the
    proximal term pulls towards.
    """
    return plan.optimiser == "sgd" and not plan.has_proximal


class OnnxStepEngine:
    """Many steps in one call: the graph loops over the mini-batches in a `Scan`.

    With `divisible` a long round takes several calls, to report progress; without, always one.
    """

    def __init__(
        self,
        train_graph: GraphSource,
        threads: int,
        *,
        divisible: bool = False,
        name: str = TRAIN_FILE,
        scale: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        """Load the graph; `scale` is what `scale_feeds` gives for its task.

        Raises:
            GraphError: see `Graph`.
        """
        self._graph = Graph(name, train_graph, threads)
        self._divisible = divisible
        self._scale = scale
        self._uncorrected = _uncorrected(self._graph)

    @classmethod
    def of_task(
        cls, task: TaskDescription, files: Mapping[str, GraphSource], threads: int = 1, *, divisible: bool = False
    ) -> "OnnxStepEngine":
        """The engine on the graph that a task's devices train with.

        Raises:
            GraphError: see `Graph`.
        """
        name = task.training.graph_file
        return cls(files[name], threads, divisible=divisible, name=name, scale=scale_feeds(task))

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        """See `TrainingEngine.train`."""
        if rates.correction is not None and CORRECTION not in self._graph.input_shapes:
            raise EngineError(
                f"the task corrects drift, and its training graph takes no {CORRECTION!r}; export the bundle again"
            )
        steps = len(plan.rows)
        losses = np.empty(steps, np.float32)
        done = 0
        count = min(FIRST_STEPS, steps) if self._divisible else steps
        while done < steps:
            chunk = slice(done, done + count)
            part = BatchPlan(plan.rows[chunk], plan.mask[chunk], plan.seed + done)
            started = time.monotonic()
            weights, losses[chunk] = self._run(weights, samples, part, rates)
            done += count
            on_progress(done, losses[:done])
            pace = (time.monotonic() - started) / count
            count = min(max(int(REPORT_SECONDS / max(pace, 1e-9)), 1), steps - done)
        return weights, losses

    def _run(
        self, weights: FloatVector, samples: Samples, plan: BatchPlan, rates: Rates
    ) -> tuple[FloatVector, FloatVector]:
        """One call of the graph, which takes those of the feeds that its task uses."""
        feeds: dict[str, NDArray[np.generic]] = {
            "weights": weights,
            "inputs": samples.inputs,
            "labels": samples.labels,
            "batches": plan.rows,
            "mask": plan.mask,
            "learning_rate": np.array(rates.learning_rate, np.float32),
            "weight_decay": np.array(rates.weight_decay, np.float32),
            "gradient_clip": np.array(rates.gradient_clip or np.inf, np.float32),
            "proximal": np.array(rates.proximal, np.float32),
            "seed": np.array(plan.seed, np.int64),
            **(self._uncorrected if rates.correction is None else {CORRECTION: rates.correction}),
            **self._scale,
        }
        outputs = self._graph.run(feeds)
        return outputs["trained_weights"], outputs["losses"]


def _uncorrected(graph: Graph) -> dict[str, NDArray[np.float32]]:
    """What a graph is fed that takes a correction where there is none."""
    shape = graph.input_shapes.get(CORRECTION, [])
    return {CORRECTION: np.zeros([size for size in shape if isinstance(size, int)], np.float32)}
