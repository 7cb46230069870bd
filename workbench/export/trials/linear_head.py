"""Whether a head that is to be solved is linear: scores are features @ weight.T + bias, whatever the weights are."""

from collections.abc import Mapping

import numpy as np

from bundle_runtime.bundle import written
from bundle_runtime.runner import BundleRunner
from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription

ROWS = 16
SEED = 0
TOLERANCE = 1e-4
"""Of the largest score: float32 sums of some thousand products."""


def check_linear_head(description: TaskDescription, files: Mapping[str, bytes], name: str) -> None:
    """Try random features and random weights, where a task has a solved head; `name` is its file.

    Raises:
        ConfigurationError: something else than one nn.Linear stands between features and scores.
    """
    if description.solved_head is None:
        return
    parse_description(written(description), name)  # the shapes are those of one nn.Linear
    generator = np.random.default_rng(SEED)
    classes, size = description.shapes[0]
    features = generator.uniform(-1, 1, (ROWS, size)).astype(np.float32)
    weights = generator.uniform(-1, 1, description.parameter_count).astype(np.float32)
    expected = features @ weights[: classes * size].reshape(classes, size).T + weights[classes * size :]
    shaped = features.reshape(ROWS, *description.trained_input.shape)
    scores = BundleRunner(description, files).predict_features(weights, shaped)
    apart = float(np.abs(scores - expected).max())
    if apart > TOLERANCE * float(np.abs(expected).max()):
        raise ConfigurationError(
            f"{name}: [solved_head] needs a head that is one nn.Linear, and this one's scores differ from"
            f" features @ weight.T + bias by {apart:.3g}; move what stands before it, such as a normalisation, into the"
            " [backbone] module, and leave out what stands behind it"
        )
