"""Linear discriminant analysis from class means alone. Pure.

FedCOF (Goswami et al. 2025): where samples are drawn alike on all devices, a device's mean of n samples scatters by
1 / n of the covariance. So with K_c devices that have class c, the covariance within classes is about

    S = sum_kc n_kc (m_kc - m_c)(m_kc - m_c)^T / sum_c (K_c - 1)

It is shrunk towards independent features that vary alike (Ledoit and Wolf 2004, with a share that is given):
S' = (1 - shrinkage) S + shrinkage tr(S) / D I. Then, with m the mean of the m_c, and every class as likely as another:

    S' w_c = m_c - m        b_c = -(m_c + m) . w_c / 2
"""

import numpy as np

from broker_coordinator.aggregation.solved_heads.cholesky import solve
from broker_coordinator.aggregation.solved_heads.head import UNSEEN_SCORE, Head
from broker_coordinator.aggregation.solved_heads.pooling import Pooled
from fleet_protocol.solved_head import SolvedHead

SMALLEST_SHARE = 1e-6
"""Of the scatter between classes: where devices' means scatter by less, they say nothing of the covariance."""
SMALLEST_VARIANCE = 1e-12
"""Where classes have equal means too: nothing is divided by 0."""


def solve_means(statistics: Pooled, plan: SolvedHead) -> Head:
    """The formulas above. Of one device for each class, whose mean scatters about nothing, the nearest mean decides."""
    present = statistics.present
    means = statistics.means[present]
    middle = means.mean(axis=0)
    apart = means - middle
    size = apart.shape[1]
    covariance = statistics.within / max(1.0, float((statistics.parts[present] - 1).sum()))
    usual = float(np.trace(covariance)) / size
    between = float(np.square(apart).mean())
    if usual <= SMALLEST_SHARE * between:
        usual = max(between, SMALLEST_VARIANCE)
        covariance = usual * np.eye(size)
    shrunk = (1 - plan.shrinkage) * covariance
    shrunk[np.diag_indices(size)] += plan.shrinkage * usual
    found = solve(shrunk, apart.T).T
    weight = np.zeros_like(statistics.means)
    bias = np.full(len(weight), UNSEEN_SCORE)
    weight[present] = found
    bias[present] = -0.5 * (found * (means + middle)).sum(axis=1)
    return Head(weight, bias)
