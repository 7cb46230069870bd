"""How good a model is on samples that no device trains on, in the measure of its kind of label."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelKind, runs

Score = Callable[[FloatVector], float]


@dataclass(frozen=True, slots=True)
class Scorer:
    """`score` says how good some weights are, and `measure` what that is called: 1 is best, but for the negative of a
    loss in model.py. `heads` are the scores of each head by what they are called, where there are several.
    """

    score: Score
    measure: str
    heads: Mapping[str, Score]

    def of_heads(self, weights: FloatVector) -> dict[str, float]:
        """Each head's score."""
        return {measure: score(weights) for measure, score in self.heads.items()}


@dataclass(frozen=True, slots=True)
class _Head:
    """A head, empty `name` for the only one, and the samples that it is scored on; `targets` [N, values]."""

    name: str
    runner: BundleRunner
    held_out: Samples
    targets: NDArray[Any]

    def predict(self, weights: FloatVector, samples: Samples) -> NDArray[np.float32]:
        return self.runner.predict_features(weights, samples.inputs, self.name).reshape(len(samples), -1)


def scorer(runner: BundleRunner, task: TaskDescription, held_out: Samples) -> Scorer:
    """Scores of some weights. `held_out` are features where the task has a backbone.

    Raises:
        ConfigurationError: what the score compares with does not vary.
    """
    found: dict[str, Score] = {}
    labels = held_out.labels.reshape(len(held_out), -1)
    for name, label, place in runs(task.each_label):
        targets = held_out.inputs if label.kind == "reconstruction" else labels[:, place]
        head = _Head(name, runner, held_out, targets.reshape(len(held_out), -1))
        make, measure = _SCORES[label.kind]
        if label.kind == "regression" and not _is_comparable(head, task):
            make, measure = _SCORES["none"]
        found[f"{name} {measure}".lstrip()] = make(head)
    if not task.heads:
        ((measure, score),) = found.items()
        return Scorer(score, measure, {})
    scores = list(found.values())
    return Scorer(
        lambda weights: float(np.mean([score(weights) for score in scores])), f"mean of {', '.join(found)}", found
    )


def _is_comparable(head: _Head, task: TaskDescription) -> bool:
    """Whether there is one prediction for each number; a loss in model.py may want more, such as quantiles."""
    some = np.zeros(task.parameter_count, np.float32)
    return bool(head.predict(some, head.held_out.take(slice(1))).shape[1] == head.targets.shape[1])


def _accuracy(head: _Head) -> Score:
    def accuracy(weights: FloatVector) -> float:
        found = head.runner.evaluate_features(weights, head.held_out)
        accuracy = found.heads[head.name].accuracy if head.name else found.accuracy
        return math.nan if accuracy is None else accuracy

    return accuracy


def _micro_f1(head: _Head) -> Score:
    wanted = head.targets > 0
    if not wanted.any():
        raise ConfigurationError(f"none of the {len(wanted)} samples held out has a label that applies; add some")

    def micro_f1(weights: FloatVector) -> float:
        found = head.predict(weights, head.held_out) > 0  # scores are logits
        return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))

    return micro_f1


def _explained(head: _Head) -> Score:
    """R2: 1 minus the squared error over that of always answering the mean, values of a sample taken together."""
    targets = head.targets.astype(np.float64)
    total = np.square(targets - targets.mean(axis=0)).sum()
    if not total:
        raise ConfigurationError(
            f"the {len(targets)} samples held out all have the same values to predict: there is nothing to score"
        )

    def explained(weights: FloatVector) -> float:
        return float(1 - np.square(head.predict(weights, head.held_out) - targets).sum() / total)

    return explained


def _negative_loss(head: _Head) -> Score:
    return lambda weights: -head.runner.evaluate_features(weights, head.held_out).loss


_SCORES: Final[Mapping[LabelKind, tuple[Callable[[_Head], Score], str]]] = {
    "class": (_accuracy, "accuracy"),
    "multi_label": (_micro_f1, "F1 over all labels"),
    "regression": (_explained, "R2"),
    "reconstruction": (_explained, "share of the inputs' variance given back"),
    "none": (_negative_loss, "negative loss"),
}
