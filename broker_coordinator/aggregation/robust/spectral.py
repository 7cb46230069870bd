"""Divide and conquer (Shejwalkar & Houmansadr 2021, algorithm 2): without the outliers in the one direction in which
updates differ most, which is where devices that act together lie.

    v = first right singular vector of the rows x_i - mean;     score_i = <x_i - mean, v>^2
    result = mean of the n - f with the least scores

f of the n updates may be hostile. Once, and over all entries, where the paper draws some of them several times: with
K = (x_i - mean) (x_j - mean)^T, score_i is, up to one factor, the square of entry i of K's first eigenvector.
"""

from typing import Final

import numpy as np

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Matrix, Vector

POWER_STEPS: Final = 64
"""Of the power method: what is not told apart by then differs as much in either direction."""


def spectral(compared: Compared) -> Vector:
    """See above."""
    stack = compared.stack
    kept = len(stack) - min(compared.hostile, (len(stack) - 1) // 2)
    scores = np.square(first_eigenvector(centred(stack.products())))
    order = np.argsort(scores, kind="stable")
    return stack.take(sorted(order[:kept].tolist())).mean()


def centred(products: Matrix) -> Matrix:
    """<x_i - mean, x_j - mean>, from <x_i, x_j>."""
    means: Vector = products.mean(axis=0)
    found: Matrix = products - means[:, None] - means[None, :] + means.mean()
    return found


def first_eigenvector(matrix: Matrix) -> Vector:
    """Of a symmetric, positive semi-definite one, by the power method; of length 1, or zeros where the matrix is."""
    largest = int(np.argmax(np.diagonal(matrix)))
    vector: Vector = matrix[largest].copy()
    for _ in range(POWER_STEPS):
        length = np.sqrt(np.sum(np.square(vector)))
        if not length:
            return vector
        vector = np.sum(matrix * (vector / length), axis=1)
    vector /= np.sqrt(np.sum(np.square(vector)))
    return vector
