"""Predictions of a distribution over models: the mean over some that are drawn from it, and how far they differ. Pure.

    probability of a class = mean over draws of its probability;  uncertainty = their standard deviation

What the samples don't settle, drawn models differ on (Blundell et al. 2015, section 3). The same models are drawn for
every sample, so that two predictions differ by their inputs alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector

SEED = 0
LEAST_PROBABILITY = 1e-30
"""Whose logarithm is a number."""

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DrawnModels:
    """So many `draws` from a Gaussian of `mean` and `deviation`, f32[P] each; a deviation of 0 is of what is in all
    models alike. `has_classes`: scores are logits of classes, else numbers.
    """

    mean: FloatVector
    deviation: FloatVector
    draws: int
    has_classes: bool

    def predict(self, scores_of: Callable[[FloatVector], Scores]) -> tuple[Scores, Scores]:
        """Scores f32[N, ...] of all together, logits of the mean probabilities where they are of classes; and the
        standard deviation of each probability, or number. `scores_of` gives those of one model.
        """
        generator = np.random.default_rng(SEED)
        total = squares = np.zeros(1)
        places = np.flatnonzero(self.deviation)
        for _ in range(self.draws):
            drawn = self.mean.copy()
            drawn[places] += self.deviation[places] * generator.standard_normal(places.size, np.float32)
            values = scores_of(drawn).astype(np.float64)
            said = _softmax(values) if self.has_classes else values
            total, squares = total + said, squares + said**2
        mean = total / self.draws
        spread = np.sqrt(np.maximum(squares / self.draws - mean**2, 0))
        scores = np.log(np.maximum(mean, LEAST_PROBABILITY)) if self.has_classes else mean
        return scores.astype(np.float32), spread.astype(np.float32)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return probabilities
