"""How good a model is on samples that no device trains on, in the measure of its kind of label; 1 is best in each."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import LabelKind, TaskDescription
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError

Score = Callable[[FloatVector], float]


def scorer(runner: BundleRunner, task: TaskDescription, held_out: Samples) -> tuple[Score, str]:
    """The score of some weights, and what it is called. `held_out` are features where the task has a backbone.

    Raises:
        ConfigurationError: what the score compares with does not vary.
    """
    make, measure = _SCORES[task.label.kind]
    return make(runner, held_out), measure


def _accuracy(runner: BundleRunner, held_out: Samples) -> Score:
    def accuracy(weights: FloatVector) -> float:
        found = runner.evaluate_features(weights, held_out).accuracy
        return math.nan if found is None else found

    return accuracy


def _micro_f1(runner: BundleRunner, held_out: Samples) -> Score:
    wanted = held_out.labels > 0
    if not wanted.any():
        raise ConfigurationError(f"none of the {len(held_out)} samples held out has a label that applies; add some")

    def micro_f1(weights: FloatVector) -> float:
        found = runner.predict_features(weights, held_out.inputs) > 0  # scores are logits
        return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))

    return micro_f1


def _explained(runner: BundleRunner, held_out: Samples, targets: NDArray[Any]) -> Score:
    """R2: 1 minus the squared error over that of always answering the mean, values of a sample taken together."""
    targets = targets.reshape(len(held_out), -1).astype(np.float64)
    total = np.square(targets - targets.mean(axis=0)).sum()
    if not total:
        raise ConfigurationError(
            f"the {len(held_out)} samples held out all have the same values to predict: there is nothing to score"
        )

    def explained(weights: FloatVector) -> float:
        found = runner.predict_features(weights, held_out.inputs).reshape(targets.shape)
        return float(1 - np.square(found - targets).sum() / total)

    return explained


_SCORES: Final[Mapping[LabelKind, tuple[Callable[[BundleRunner, Samples], Score], str]]] = {
    "class": (_accuracy, "accuracy"),
    "multi_label": (_micro_f1, "F1 over all labels"),
    "regression": (lambda runner, held_out: _explained(runner, held_out, held_out.labels), "R2"),
    "reconstruction": (
        lambda runner, held_out: _explained(runner, held_out, held_out.inputs),
        "share of the inputs' variance given back",
    ),
}
