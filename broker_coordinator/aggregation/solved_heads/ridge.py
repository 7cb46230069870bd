"""The ridge regression of all samples on their classes, exactly, from sums over devices. Pure.

AFL (He et al. 2025) and Fed3R (Fani et al. 2024): the weights W [D, C] and the bias b [C] that minimise

    sum_i |x_i W + b - y_i|^2 + ridge |W|^2        y_i: 1 at the sample's class, else 0; the bias has no penalty

With T the scatter of all features about their mean m, n_c samples of class c and their mean m_c:

    (T + ridge I) w_c = n_c (m_c - m)        b_c = n_c / n - m . w_c
"""

import numpy as np

from broker_coordinator.aggregation.solved_heads.cholesky import solve
from broker_coordinator.aggregation.solved_heads.head import Head
from broker_coordinator.aggregation.solved_heads.pooling import Pooled, weighted_sum
from fleet_protocol.codec.class_statistics import rounding_of
from fleet_protocol.solved_head import SolvedHead


def solve_ridge(statistics: Pooled, plan: SolvedHead) -> Head:
    """The formulas above. The ridge is never smaller than what rounding may take from the matrix: it stays positive
    definite.
    """
    apart = statistics.means - statistics.mean
    scatter = statistics.within.copy()
    for place in np.flatnonzero(statistics.present):
        scatter += np.multiply.outer(statistics.counts[place] * apart[place], apart[place])
    size = len(scatter)
    taken = 4 * size * rounding_of(plan.precision) * float(np.diagonal(scatter).max())
    scatter[np.diag_indices(size)] += max(plan.ridge, taken)
    weight = solve(scatter, (statistics.counts[:, None] * apart).T).T
    shares = statistics.counts / statistics.samples
    return Head(weight, shares - weighted_sum(statistics.mean, weight.T))
