"""Whether a model is as often right as it says: the expected calibration error (Guo et al. 2017, equation 3).

    error = sum over bins of (answers in the bin / all answers) * |share of right ones - mean confidence|

with 15 bins of equal width in the probability of the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, slots=True)
class Answers:
    """Of some samples: `right`, bool [N], and the probability of each answer, f64[N]."""

    right: NDArray[np.bool_]
    confidence: NDArray[np.float64]

    @classmethod
    def of(cls, scores: NDArray[np.float32], labels: NDArray[np.generic]) -> "Answers":
        """Those of logits f32[N, classes]."""
        shares = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
        probabilities = shares / shares.sum(axis=1, keepdims=True)
        return cls(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1))


def calibration_error(answers: Sequence[Answers]) -> float:
    """Of all answers together; there is at least one."""
    right = np.concatenate([each.right for each in answers]).astype(np.float64)
    confidence = np.concatenate([each.confidence for each in answers])
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, right - confidence, BINS)
    return float(np.abs(gaps).sum() / right.size)
