"""Partitioned variational inference (Bui et al. 2018, algorithm 1; Ashman et al. 2022): the prior times every factor.

    factor_i = factor_i + update_i            for the devices in the buffer, both in natural parameters
    precision = prior precision + sum over all devices of precision_i
    mean = (prior precision * prior mean + sum over all devices of (precision * mean)_i) / precision

Version 0 is the prior; a version's first half are means and its second half precisions, in units of the prior's
deviation (`fleet_protocol.posterior_plan`), so that the first half of a factor counts in precisions of the prior. A
factor is a device's EF21 estimate, within the bounds of all of them; it never makes anything less precise. Sums need no
weights by samples, and of staleness none: what a device has not moved since is still its factor.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.bounds import Bounds
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.ef21 import Estimate, remember
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy, Updates, in_order
from fleet_protocol.aggregation_plan import AggregationPlan


def finish(state: ServerState, updates: Updates, plan: AggregationPlan) -> Step:
    """See above."""
    factors = remember(state, updates, plan)
    prior_mean, prior = np.split(state.moments[0].astype(np.float64), 2)
    weighted_mean, precision = np.split(_product(factors.values(), state.weights.size), 2)
    times = 1 + precision / prior
    posterior = np.concatenate([(prior_mean + weighted_mean) / times, prior * times])
    return Step(posterior - state.weights, remembered=factors)


def _product(factors: Iterable[Estimate], size: int) -> NDArray[np.float64]:
    """The sum of their natural parameters, float64 [size], each within the bounds of all."""
    each = list(factors)
    norms = [float(np.linalg.norm(factor.delta)) for factor in each]
    bounds = Bounds.among([factor.samples for factor in each], norms)
    total = np.zeros(size)
    for factor, norm in zip(each, norms, strict=True):
        bounded = bounds.scale(norm) * factor.delta
        bounded[size // 2 :] = np.maximum(bounded[size // 2 :], 0)
        total += bounded
    return total


POSTERIOR = Strategy(in_order, finish, remember, Recall.ALL_UPDATES, keeps_first=True)
