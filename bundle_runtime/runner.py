"""A bundle run on raw inputs, whether or not it has a backbone: what devices would predict, and how well."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.backbone import Backbone
from bundle_runtime.graph import Graph, GraphSource
from bundle_runtime.samples import Samples
from bundle_runtime.scale_feeds import scale_feeds
from fleet_protocol.bundle_files import BACKBONE_FILE, EVALUATE_FILE, PREDICT_FILE
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sample_schema import qualified
from fleet_protocol.task_description import TaskDescription

EVALUATED_AT_ONCE = 256
"""Rows of one call, so that memory does not grow with the samples."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Sample by sample: `losses` f32[N]; `correct` f32[N], 1 where the answer is right, None without classes.

    Where a model has several heads, `heads` are the figures of each, and `losses` are what trains.
    """

    losses: NDArray[np.float32]
    correct: NDArray[np.float32] | None
    heads: Mapping[str, "HeadFigures"] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The mean."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; None where labels aren't classes."""
        return None if self.correct is None else float(self.correct.mean(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """Means over the samples: the head's own `loss`, None where one in model.py is for all; `accuracy` as above."""

    loss: float | None
    accuracy: float | None


def bundle_paths(folder: Path, task: TaskDescription) -> dict[str, Path]:
    """The files of a bundle folder, by their names."""
    return {name: folder / name for name in task.files}


class BundleRunner:
    """The graphs of one bundle, each loaded when it is first used."""

    def __init__(self, task: TaskDescription, files: Mapping[str, GraphSource], threads: int = 1) -> None:
        self._task = task
        self._files = files
        self._threads = threads
        self._scale = scale_feeds(task)
        self._backbone: Backbone | None = None
        self._graphs: dict[str, Graph] = {}

    def features(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the other graphs take, f32[N, *trained_input.shape]; without a backbone the inputs themselves.

        It doesn't depend on the weights: compute it once to measure many versions, and use `evaluate_features`.

        Raises:
            GraphError: the backbone can't be loaded, or does not take the inputs.
        """
        if self._task.backbone is None:
            return inputs
        if self._backbone is None:
            self._backbone = Backbone(self._files[BACKBONE_FILE], self._threads)
        return self._backbone.features(inputs)

    def featured(self, samples: Samples) -> Samples:
        """The same samples as training takes them: features in place of inputs, where the task has a backbone.

        Raises:
            GraphError: the backbone can't be loaded, or does not take the inputs.
        """
        return replace(samples, inputs=self.features(samples.inputs))

    def predict(self, weights: FloatVector, inputs: NDArray[np.float32], head: str = "") -> NDArray[np.float32]:
        """Scores f32[N, ...] of raw inputs, by the head of that name where there are several.

        Raises:
            GraphError: a graph can't be loaded, or does not take the inputs.
        """
        return self.predict_features(weights, self.features(inputs), head)

    def predict_features(
        self, weights: FloatVector, features: NDArray[np.float32], head: str = ""
    ) -> NDArray[np.float32]:
        """The same for what `features` has made of the inputs; there is at least one.

        Raises:
            GraphError: the graph can't be loaded, or does not take the features.
        """
        graph = self._graph(PREDICT_FILE)
        starts = range(0, len(features), EVALUATED_AT_ONCE)
        parts = (features[start : start + EVALUATED_AT_ONCE] for start in starts)
        scores = qualified("scores", head)
        return np.concatenate(
            [graph.run({"weights": weights, "inputs": part, **self._scale})[scores] for part in parts]
        )

    def evaluate(self, weights: FloatVector, samples: Samples) -> Evaluation:
        """Losses and right answers on raw samples; there is at least one.

        Raises:
            GraphError: a graph can't be loaded, or does not take the samples.
        """
        return self.evaluate_features(weights, self.featured(samples))

    def evaluate_features(self, weights: FloatVector, samples: Samples) -> Evaluation:
        """The same for what `featured` has made of the samples.

        Raises:
            GraphError: the graph can't be loaded, or does not take the samples.
        """
        graph = self._graph(EVALUATE_FILE)
        parts = []
        for start in range(0, len(samples), EVALUATED_AT_ONCE):
            part = samples.take(slice(start, start + EVALUATED_AT_ONCE))
            parts.append(graph.run({"weights": weights, "inputs": part.inputs, "labels": part.labels, **self._scale}))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        heads = {name: _figures(joined, name) for name in self._task.heads}
        return Evaluation(joined["losses"], joined.get("correct"), heads)

    def _graph(self, file: str) -> Graph:
        if file not in self._graphs:
            self._graphs[file] = Graph(file, self._files[file], self._threads)
        return self._graphs[file]


def _figures(outputs: Mapping[str, NDArray[np.float32]], head: str) -> HeadFigures:
    loss, accuracy = (
        float(outputs[name].mean(dtype=np.float64)) if (name := qualified(what, head)) in outputs else None
        for what in ("losses", "correct")
    )
    return HeadFigures(loss, accuracy)
