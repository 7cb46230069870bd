"""What a model's scores of one sample say, in the terms of the task's label. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from fleet_protocol.bundle import LabelSchema


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A prediction for one sample.

    `value` is a class, one 0 or 1 for each class, or the numbers that were learned; for a task that gives back its
    inputs it is how far it is off: the mean squared error, which is large for what is unlike the samples.
    `probabilities` are those of each class, and `confidence` that of `value`; None where there are no classes.
    """

    value: int | float | list[int] | list[float]
    confidence: float | None = None
    probabilities: list[float] | None = None


def interpret(scores: Sequence[float], inputs: Sequence[float], label: LabelSchema) -> Prediction:
    """Read the scores of one sample, in C order, by the kind of its label."""
    return _READERS[label.kind](scores, inputs)


def _class(scores: Sequence[float], _: Sequence[float]) -> Prediction:
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    probabilities = [share / math.fsum(shares) for share in shares]
    value = max(range(len(scores)), key=scores.__getitem__)
    return Prediction(value, probabilities[value], probabilities)


def _multi_label(scores: Sequence[float], _: Sequence[float]) -> Prediction:
    """`confidence` is that of the answer that is least sure."""
    probabilities = [0.5 * (1 + math.tanh(score / 2)) for score in scores]  # the logistic function, without overflow
    sure = min(max(each, 1 - each) for each in probabilities)
    return Prediction([int(score > 0) for score in scores], sure, probabilities)


def _regression(scores: Sequence[float], _: Sequence[float]) -> Prediction:
    return Prediction(scores[0] if len(scores) == 1 else list(scores))


def _reconstruction(scores: Sequence[float], inputs: Sequence[float]) -> Prediction:
    return Prediction(math.fsum((a - b) ** 2 for a, b in zip(scores, inputs, strict=True)) / len(inputs))


_READERS: Final[Mapping[str, Callable[[Sequence[float], Sequence[float]], Prediction]]] = {
    "class": _class,
    "multi_label": _multi_label,
    "regression": _regression,
    "reconstruction": _reconstruction,
}
