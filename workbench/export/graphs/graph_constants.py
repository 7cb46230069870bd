"""Constants in a graph that is put together node by node."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, numpy_helper


def add_constant(graph: GraphProto, name: str, value: Sequence[int] | np.generic | np.ndarray) -> None:
    """Let `graph` hold `value` under that name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
