"""Labels drawn from a model's own predictions, as the loss takes these for probabilities. Pure.

Of cross entropy a class with its probability; of the mean over `size` values of squared differences, whose exponential
is a Gaussian of variance size / (2 N) in N samples, each value with the variance size / 2.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sample_schema import LabelSchema


def own_labels(
    scores: FloatVector, label: LabelSchema, generator: np.random.Generator
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Classes int64 [N] for scores f32 [N, classes], or values float32 [N, size] for as many scores."""
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    if not label.is_index:
        return (rows + math.sqrt(rows.shape[1] / 2) * generator.standard_normal(rows.shape)).astype(np.float32)
    shares = np.exp(rows - rows.max(axis=1, keepdims=True)).cumsum(axis=1)
    drawn = generator.random((len(rows), 1)) * shares[:, -1:]
    classes: NDArray[np.int64] = np.minimum((shares <= drawn).sum(axis=1), rows.shape[1] - 1)
    return classes
