"""Synchronous federated averaging (McMahan et al. 2017, algorithm 1), as a baseline.

A version is a round: it ends when `buffer_size` of the devices asked have reported, or at its deadline with those that
have (over-selection and deadline: Bonawitz et al. 2019, section 2.2). An update that comes later is refused as stale,
as `max_staleness` is 0.
"""

from collections.abc import Sequence

from broker_coordinator.aggregation.contribution import (
    BufferedUpdate,
    Contribution,
    contribution_of,
    weighted_by_samples,
)
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Strategy, Weighted, mean
from fleet_protocol.aggregation_plan import AggregationPlan


def weighted(_state: ServerState, updates: Sequence[BufferedUpdate], _plan: AggregationPlan) -> Weighted:
    """By samples."""
    return weighted_by_samples(updates)


def partial(state: ServerState, updates: Sequence[BufferedUpdate], _: AggregationPlan) -> Contribution:
    """The sum, weighted by samples."""
    return contribution_of(weighted_by_samples(updates), state.weights.size)


FEDAVG = Strategy(partial, mean, weighted=weighted)
