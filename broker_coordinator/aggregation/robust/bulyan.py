"""Bulyan (El Mhamdi, Guerraoui & Rouault 2018): Krum chooses n - 2f updates, and of each entry the middle counts.

    theta = n - 2f times: take the update with the least Krum score among those that are left
    beta = theta - 2f:    of each entry the mean of the beta values nearest to the median of these theta

f of the n updates may be hostile, and n >= 4f + 3. Where k of the theta sent an entry, floor(k * beta / theta) of their
values count, one at least.
"""

from collections.abc import Sequence

import numpy as np

from broker_coordinator.aggregation.robust.by_entry import Counts, mean_between, middle, of_sent
from broker_coordinator.aggregation.robust.krum import distances_in, scores, withstood
from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Matrix, Vector


def bulyan(compared: Compared) -> Vector:
    """See above."""
    hostile = withstood(compared, 4)
    chosen = _chosen(distances_in(compared.stack), hostile)
    theta = len(chosen)
    beta = theta - 2 * hostile

    def around_median(ascending: Matrix, sent: Counts) -> Vector:
        counted = np.maximum(sent * beta // theta, 1)
        far = np.abs(ascending - middle(ascending, sent))
        nearest = np.take_along_axis(ascending, np.argsort(far, axis=0, kind="stable"), 0)
        return mean_between(nearest, np.zeros_like(counted), counted)

    return of_sent(compared.stack.take(chosen), around_median)


def _chosen(squared: Matrix, hostile: int) -> Sequence[int]:
    left = list(range(len(squared)))
    chosen: list[int] = []
    while left and len(chosen) < len(squared) - 2 * hostile:
        place = int(np.argmin(scores(squared[np.ix_(left, left)], hostile)))
        chosen.append(left.pop(place))
    return sorted(chosen)
