"""What a model's scores of one sample say, in the terms of the label of a head. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from fleet_protocol.sample_schema import LabelKind, LabelSchema


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A prediction for one sample.

    `value` is a class, one 0 or 1 for each class, or the numbers that were learned; where positions are labelled each
    by itself, those of all in C order. For a task that gives back its inputs it is how far it is off: the mean squared
    error, which is large for what is unlike the samples. `confidence` is the probability of the answer, of several that
    of the least sure one, and `probabilities` are those of each class of a whole sample; None without classes.
    `uncertainty` is of a model that is a distribution over weights: by how much models drawn from it differ in the
    answer's probability, or in each number, as a standard deviation.
    """

    value: int | float | list[int | float]
    confidence: float | None = None
    probabilities: list[float] | None = None
    uncertainty: float | list[float] | None = None


def interpret(scores: Sequence[float], label: LabelSchema, spread: Sequence[float] = ()) -> Prediction:
    """Read the scores of one sample by the kind of its label; `scores` [classes or values, *shape] in C order, or, for
    a model that gives back its inputs, how far each value is off. `spread`, where there is any, is as long.
    """
    prediction = _READERS[label.kind](scores, label)
    return msgspec.structs.replace(prediction, uncertainty=_uncertainty(prediction, spread)) if spread else prediction


def _uncertainty(prediction: Prediction, spread: Sequence[float]) -> float | list[float]:
    if prediction.probabilities is not None and isinstance(prediction.value, int):
        return spread[prediction.value]
    return spread[0] if len(spread) == 1 else list(spread)


def _class(scores: Sequence[float], label: LabelSchema) -> Prediction:
    positions = math.prod(label.shape)
    distributions = [_softmax(scores[position::positions]) for position in range(positions)]
    classes = [max(range(len(each)), key=each.__getitem__) for each in distributions]
    sure = min(each[value] for each, value in zip(distributions, classes, strict=True))
    if label.is_index:
        return Prediction(classes[0], sure, distributions[0])
    return Prediction([*classes], sure)


def _multi_label(scores: Sequence[float], label: LabelSchema) -> Prediction:
    probabilities = [0.5 * (1 + math.tanh(score / 2)) for score in scores]  # the logistic function, without overflow
    sure = min(max(each, 1 - each) for each in probabilities)
    answers: list[int | float] = [int(score > 0) for score in scores]
    return Prediction(answers, sure, None if label.shape else probabilities)


def _numbers(scores: Sequence[float], _: LabelSchema) -> Prediction:
    return Prediction(scores[0] if len(scores) == 1 else list(scores))


def _reconstruction(scores: Sequence[float], _: LabelSchema) -> Prediction:
    return Prediction(math.fsum(each**2 for each in scores) / len(scores))


def _softmax(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    total = math.fsum(shares)
    return [share / total for share in shares]


_READERS: Final[Mapping[LabelKind, Callable[[Sequence[float], LabelSchema], Prediction]]] = {
    "class": _class,
    "multi_label": _multi_label,
    "regression": _numbers,
    "reconstruction": _reconstruction,
    "none": _numbers,
}
