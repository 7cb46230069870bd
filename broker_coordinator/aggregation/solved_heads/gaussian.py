"""A softmax head, trained on features that are drawn from each class's mean and variances. Pure.

GH-OFL: the coordinator has no features, so it draws as many of each class from the normal distribution that devices'
moments describe, and fits the head to these. `STEPS` of Nesterov's gradient descent on standardised features minimise
the convex mean cross entropy + ridge |W|^2 / (2 n). Drawing and fitting are the same on one machine; another processor
may differ in the last bits, as its exponential function does.
"""

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.solved_heads.head import UNSEEN_SCORE, Head
from broker_coordinator.aggregation.solved_heads.pooling import Pooled
from fleet_protocol.codec.class_statistics import Table
from fleet_protocol.solved_head import SolvedHead

STEPS = 300


def solve_gaussian(statistics: Pooled, plan: SolvedHead) -> Head:
    """A softmax regression of the classes on drawn features."""
    present = statistics.present
    means = statistics.means[present]
    deviations = np.sqrt(statistics.within[present] / statistics.counts[present][:, None])
    generator = np.random.default_rng(plan.seed)
    drawn = generator.standard_normal((len(means), plan.draws, means.shape[1]))
    features = (means[:, None] + deviations[:, None] * drawn).reshape(-1, means.shape[1])
    labels = np.repeat(np.arange(len(means)), plan.draws)
    middle, unit = features.mean(axis=0), features.std(axis=0)
    unit[unit == 0] = 1.0
    found, shift = _softmax_regression((features - middle) / unit, labels, len(means), plan.ridge)
    found /= unit
    weight = np.zeros_like(statistics.means)
    bias = np.full(len(weight), UNSEEN_SCORE)
    weight[present] = found
    bias[present] = shift - found @ middle
    return Head(weight, bias)


def _softmax_regression(features: Table, labels: NDArray[np.int_], classes: int, ridge: float) -> tuple[Table, Table]:
    """Weights [C, D] and bias [C] by Nesterov's accelerated gradient (1983), with the step 1 / L for the bound
    L <= |X|^2 / (2 n) + ridge / n of the loss's curvature (Boehning 1992).
    """
    count = len(features)
    table = np.hstack([features, np.ones((count, 1))])
    targets = np.eye(classes)[labels]
    penalty = np.full(table.shape[1], ridge / count)
    penalty[-1] = 0.0
    curvature = 0.5 * float(np.linalg.norm(table, 2)) ** 2 / count + ridge / count
    found = ahead = np.zeros((classes, table.shape[1]))
    for step in range(STEPS):
        scores = table @ ahead.T
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = (shares - targets).T @ table / count + penalty * ahead
        last, found = found, ahead - gradient / curvature
        ahead = found + step / (step + 3) * (found - last)
    return found[:, :-1], found[:, -1]
