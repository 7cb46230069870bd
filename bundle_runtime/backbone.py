"""A frozen backbone: raw inputs in, features out."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.graph import Graph, GraphSource
from fleet_protocol.bundle_files import BACKBONE_FILE

ROWS_AT_ONCE = 16
"""A mini-batch. Memory grows with it; more rows are hardly faster on a processor."""


class Backbone:
    """A bundle's `backbone.onnx`, ready to run."""

    def __init__(self, source: GraphSource, threads: int) -> None:
        """Load it.

        Raises:
            GraphError: see `Graph`.
        """
        self._graph = Graph(BACKBONE_FILE, source, threads)

    def features(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[N, *input.shape] to f32[N, *feature_shape], a mini-batch at a time; N is at least 1."""
        starts = range(0, len(inputs), ROWS_AT_ONCE)
        return np.concatenate([self._run(inputs[start : start + ROWS_AT_ONCE]) for start in starts])

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._graph.run({"inputs": inputs})["features"]
