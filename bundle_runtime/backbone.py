"""A frozen backbone: raw inputs in, features out."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

ROWS_AT_ONCE = 16
"""A mini-batch. Memory grows with it; more rows are hardly faster on a processor."""


class Backbone:
    """A bundle's `backbone.onnx`, ready to run."""

    def __init__(self, file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Weights that travelled as int8 become float32 once, here, and not in every run.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def features(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[N, *input.shape] to f32[N, *feature_shape], a mini-batch at a time; N is at least 1."""
        starts = range(0, len(inputs), ROWS_AT_ONCE)
        return np.concatenate([self._run(inputs[start : start + ROWS_AT_ONCE]) for start in starts])

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        features: NDArray[np.float32]
        (features,) = self._session.run(["features"], {"inputs": inputs})
        return features
