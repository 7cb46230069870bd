"""FedBuff (Nguyen et al. 2022, algorithm 1): the mean of a buffer, stale updates weighing less."""

from collections.abc import Sequence

from broker_coordinator.aggregation.contribution import BufferedUpdate, Contribution, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Strategy, Weighted, mean
from fleet_protocol.aggregation_plan import AggregationPlan


def weighted(_state: ServerState, updates: Sequence[BufferedUpdate], plan: AggregationPlan) -> Weighted:
    """By samples and staleness."""
    return [(update.weight(plan), update.delta) for update in updates]


def partial(state: ServerState, updates: Sequence[BufferedUpdate], plan: AggregationPlan) -> Contribution:
    """The sum, weighted by samples and staleness."""
    return contribution_of(weighted(state, updates, plan), state.weights.size)


FEDBUFF = Strategy(partial, mean, weighted=weighted)
