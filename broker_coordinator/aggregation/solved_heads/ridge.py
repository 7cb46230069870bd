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
from fleet_protocol.codec.class_statistics import Table, rounding_of
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.solved_head import SolvedHead


def solve_ridge(statistics: Pooled, plan: SolvedHead) -> Head:
    """The formulas above. The ridge is never smaller than what rounding may take from the matrix: it stays positive
    definite. That is a share of its largest variance, as devices' largest ones are of the same feature or nearly so.
    Where they are not, as of devices that lie together, it may take a share of all variances, and no more: what
    admission lets pass, sums of the most samples that a device may claim included.
    """
    apart = statistics.means - statistics.mean
    scatter = statistics.within.copy()
    for place in np.flatnonzero(statistics.present):
        scatter += np.multiply.outer(statistics.counts[place] * apart[place], apart[place])
    variances = np.diagonal(scatter)
    rounding = 4 * len(scatter) * rounding_of(plan.precision)
    sums = (statistics.counts[:, None] * apart).T
    try:
        weight = _solved(scatter, max(plan.ridge, rounding * float(variances.max())), sums)
    except ArithmeticError:
        rounding += 2 * (MAX_SAMPLES_PER_UPDATE + len(scatter)) * float(np.finfo(np.float64).eps)
        weight = _solved(scatter, max(plan.ridge, rounding * float(variances.sum())), sums)
    shares = statistics.counts / statistics.samples
    return Head(weight, shares - weighted_sum(statistics.mean, weight.T))


def _solved(scatter: Table, ridge: float, sums: Table) -> Table:
    """W^T float64[C, D].

    Raises:
        ArithmeticError: the ridge is too small for what rounding has taken.
    """
    matrix = scatter.copy()
    matrix[np.diag_indices(len(matrix))] += ridge
    return solve(matrix, sums).T
