"""A bundle run on raw inputs, whether or not it has a backbone: what devices would predict, and how well."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bundle_runtime.backbone import Backbone
from fleet_protocol.bundle import (
    BACKBONE_FILE,
    EVALUATE_FILE,
    PREDICT_FILE,
    TaskDescription,
)
from fleet_protocol.codec.sparse import FloatVector

Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`losses` f32[N]; `correct` f32[N], 1 where the answer is right, or None where labels aren't classes."""

    losses: NDArray[np.float32]
    correct: NDArray[np.float32] | None


class BundleRunner:
    """The graphs of one bundle folder, each loaded when it is first used."""

    def __init__(self, bundle: Path, description: TaskDescription, threads: int = 1) -> None:
        self._bundle = bundle
        self._threads = threads
        self._backbone = Backbone(bundle / BACKBONE_FILE, threads) if description.backbone else None
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def features(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the other graphs take, f32[N, *trained_input.shape]; without a backbone the inputs themselves.

        It doesn't depend on the weights: compute it once to measure many versions, and use `evaluate_features`.
        """
        return inputs if self._backbone is None else self._backbone.features(inputs)

    def predict(self, weights: FloatVector, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores f32[N, ...] of raw inputs."""
        return self._run(PREDICT_FILE, {"weights": weights, "inputs": self.features(inputs)})["scores"]

    def evaluate(self, weights: FloatVector, inputs: NDArray[np.float32], labels: Labels) -> Evaluation:
        """Losses and right answers on raw inputs."""
        return self.evaluate_features(weights, self.features(inputs), labels)

    def evaluate_features(self, weights: FloatVector, features: NDArray[np.float32], labels: Labels) -> Evaluation:
        """The same for what `features` has made of the inputs."""
        outputs = self._run(EVALUATE_FILE, {"weights": weights, "inputs": features, "labels": labels})
        return Evaluation(outputs["losses"], outputs.get("correct"))

    def _run(self, file: str, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
        """A graph that learns its inputs takes no labels."""
        if file not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            self._sessions[file] = onnxruntime.InferenceSession(self._bundle / file, options)
        session = self._sessions[file]
        taken = {entry.name: feeds[entry.name] for entry in session.get_inputs()}
        names = [entry.name for entry in session.get_outputs()]
        return dict(zip(names, session.run(names, taken), strict=True))
