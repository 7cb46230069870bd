"""How good a model is on samples that no device trains on, in the measure of its kind of label."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelKind, runs
from fleet_protocol.scaling import Block, Scale
from fleet_protocol.task_description import TaskDescription

Score = Callable[[FloatVector], float]


@dataclass(frozen=True, slots=True)
class Scorer:
    """`score` says how good some weights are, and `measure` what that is called: 1 is best, but for the negative of a
    loss in model.py. `one_answer` is what the best one answer to all samples scores, None where there is none to tell.
    `heads` are the scores of each head by what they are called, where there are several.
    """

    score: Score
    measure: str
    one_answer: float | None
    heads: Mapping[str, Score]

    def of_heads(self, weights: FloatVector) -> dict[str, float]:
        """Each head's score."""
        return {measure: score(weights) for measure, score in self.heads.items()}


@dataclass(frozen=True, slots=True)
class _Head:
    """A head, empty `name` for the only one, and the samples that it is scored on; `targets` [N, values], and the
    `deviations` [values] that they have in the task's scale.
    """

    name: str
    runner: BundleRunner
    held_out: Samples
    targets: NDArray[Any]
    deviations: NDArray[np.float64]

    def predict(self, weights: FloatVector, samples: Samples) -> NDArray[np.float32]:
        return self.runner.predict_features(weights, samples.inputs, self.name).reshape(len(samples), -1)


def scorer(runner: BundleRunner, task: TaskDescription, held_out: Samples) -> Scorer:
    """Scores of some weights. `held_out` are features where the task has a backbone.

    Raises:
        ConfigurationError: what the score compares with does not vary.
    """
    found: dict[str, Score] = {}
    one_answers: list[float | None] = []
    for head, kind in _heads(runner, task, held_out):
        way = _WAYS[kind]
        if kind == "regression" and not _is_comparable(head, task):
            way = _WAYS["none"]
        found[f"{head.name} {way.measure}".lstrip()] = way.score(head)
        one_answers.append(way.one_answer(head))
    if not task.heads:
        ((measure, score),) = found.items()
        return Scorer(score, measure, one_answers[0], {})
    known = [each for each in one_answers if each is not None]
    return Scorer(
        lambda weights: float(np.mean([score(weights) for score in found.values()])),
        f"mean of {', '.join(found)}",
        float(np.mean(known)) if len(known) == len(one_answers) else None,
        found,
    )


def _heads(runner: BundleRunner, task: TaskDescription, held_out: Samples) -> Iterator[tuple[_Head, LabelKind]]:
    labels = held_out.labels.reshape(len(held_out), -1)
    of_labels = _deviations(task.scaling.targets, task.target_blocks, labels.shape[1])
    for name, label, place in runs(task.each_label):
        targets, deviations = labels[:, place], of_labels[place]
        if label.kind == "reconstruction":
            targets = held_out.inputs.reshape(len(held_out), -1)
            deviations = _deviations(task.scaling.inputs, task.input_blocks, targets.shape[1])
        yield _Head(name, runner, held_out, targets, deviations), label.kind


def _deviations(scale: Scale | None, blocks: Sequence[Block], size: int) -> NDArray[np.float64]:
    """Of each value in a row of `size`; 1 where it has no scale."""
    deviations = np.ones(size)
    if scale is not None:
        columns = iter(scale.deviation)
        for block in blocks:
            deviations[block.place] = list(islice(columns, block.columns))
    return deviations


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
    """R2: 1 minus the squared error over that of always answering the mean. The values of a sample are taken together,
    each in its deviations: none counts for more because its unit is small.
    """
    targets = head.targets / head.deviations
    total = np.square(targets - targets.mean(axis=0)).sum()
    if not total:
        raise ConfigurationError(
            f"the {len(targets)} samples held out all have the same values to predict: there is nothing to score"
        )

    def explained(weights: FloatVector) -> float:
        found = head.predict(weights, head.held_out) / head.deviations
        return float(1 - np.square(found - targets).sum() / total)

    return explained


def _negative_loss(head: _Head) -> Score:
    return lambda weights: -head.runner.evaluate_features(weights, head.held_out).loss


def _commonest(head: _Head) -> float:
    """The accuracy of answering the commonest class, at each position."""
    most = np.zeros(head.targets.shape[1])
    for each in range(int(head.targets.max(initial=0)) + 1):
        most = np.maximum(most, (head.targets == each).mean(axis=0))
    return float(most.mean())


def _commonest_labels(head: _Head) -> float:
    """The F1 of answering the commonest labels, as many as are best."""
    right = np.cumsum(np.sort((head.targets > 0).sum(axis=0))[::-1])
    found = np.arange(1, right.size + 1) * len(head.targets)
    return float((2 * right / (found + right[-1])).max())


@dataclass(frozen=True, slots=True)
class _Way:
    """To score a kind of label; `one_answer` as of `Scorer`."""

    measure: str
    score: Callable[[_Head], Score]
    one_answer: Callable[[_Head], float | None]


_WAYS: Final[Mapping[LabelKind, _Way]] = {
    "class": _Way("accuracy", _accuracy, _commonest),
    "multi_label": _Way("F1 over all labels", _micro_f1, _commonest_labels),
    "regression": _Way("R2", _explained, lambda _: 0.0),
    "reconstruction": _Way("share of the inputs' variance given back", _explained, lambda _: 0.0),
    "none": _Way("negative loss", _negative_loss, lambda _: None),
}
