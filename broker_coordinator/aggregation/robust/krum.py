"""Krum and multi-Krum (Blanchard et al. 2017): the updates that are nearest to the n - f - 2 nearest others.

    score_i = sum of |x_i - x_j|^2 over the n - f - 2 nearest j

f of the n updates may be hostile, and n >= 2f + 3. Krum is the x_i with the least score, multi-Krum the mean of the
n - f with the least ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Matrix, Stack, Vector, squared_distances


def krum(compared: Compared) -> Vector:
    """See above."""
    return compared.stack.take(_least(compared, 1)).mean()


def multi_krum(compared: Compared) -> Vector:
    """See above."""
    return compared.stack.take(_least(compared, len(compared.stack) - withstood(compared, 2))).mean()


def withstood(compared: Compared, times: int) -> int:
    """f: as many as may be hostile, and n >= times * f + 3."""
    return max(0, min(compared.hostile, (len(compared.stack) - 3) // times))


def scores(squared: Matrix, hostile: int) -> Vector:
    """Those of some updates whose squared distances from each other are float64 [N, N]."""
    nearest = max(len(squared) - hostile - 2, 1)
    ascending = np.sort(squared, axis=1)[:, 1 : nearest + 1]  # the first is an update's distance from itself
    found: Vector = ascending.sum(axis=1)
    return found


def distances_in(stack: Stack) -> Matrix:
    """Squared ones; from itself, each update's is below all others'."""
    squared = squared_distances(stack.products())
    np.fill_diagonal(squared, -1)
    return squared


def _least(compared: Compared, count: int) -> Sequence[int]:
    found = scores(distances_in(compared.stack), withstood(compared, 2))
    order: NDArray[np.int64] = np.argsort(found, kind="stable")[:count]
    return sorted(order.tolist())
