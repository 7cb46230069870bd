"""A compressed model as the plain one that its recipe builds: `plain.onnx` run on a version's weights."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.bundle import Bundle
from bundle_runtime.graph import Graph
from fleet_protocol.bundle_files import PLAIN_FILE
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError


def plain_model(bundle: Bundle, weights: FloatVector) -> dict[str, NDArray[np.float32]]:
    """Name to tensor, as torch has them, of the weights f32[P] of one version.

    Raises:
        ConfigurationError: the task's model is not compressed, or its graph can't be loaded.
    """
    task = bundle.description
    if PLAIN_FILE not in bundle.files:
        raise ConfigurationError(
            f"task {task.task!r} has no [compression]: its weights are those of the plain model as they are; use the"
            " file itself"
        )
    return Graph(PLAIN_FILE, bundle.files[PLAIN_FILE]).run({"weights": weights})
