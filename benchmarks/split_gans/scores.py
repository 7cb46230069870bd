"""How good drawn pictures are: what a classifier learns from them, and how sure and how varied they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Scores:
    """Of a classifier on real pictures: the means over classes, but for accuracy. `score` is of what was drawn."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    false_positive_rate: float
    score: float


def scores(found: Table, classes: NDArray[np.int64], of_drawn: Table) -> Scores:
    """`found` f64[N, C] are the shares of classes that a classifier gives real pictures of `classes` i64[N]; `of_drawn`
    f64[M, C] those that a classifier trained on real ones gives drawn pictures.
    """
    count = found.shape[1]
    confusion = np.zeros((count, count))
    np.add.at(confusion, (classes, found.argmax(axis=1)), 1)
    right, real, told = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = right / np.maximum(told, 1), right / np.maximum(real, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, LEAST)
    wrong = (told - right) / np.maximum(confusion.sum() - real, 1)
    return Scores(
        float(right.sum() / confusion.sum()),
        float(precision.mean()),
        float(recall.mean()),
        float(f1.mean()),
        float(wrong.mean()),
        inception_score(of_drawn),
    )


def inception_score(shares: Table) -> float:
    """exp(mean KL(p(y|x) || p(y))), from 1 to the number of classes (Salimans et al. 2016), of shares f64[N, C]."""
    kept = np.maximum(shares, LEAST)
    return float(np.exp((kept * (np.log(kept) - np.log(kept.mean(axis=0)))).sum(axis=1).mean()))
