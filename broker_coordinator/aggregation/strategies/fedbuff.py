"""FedBuff (Nguyen et al. 2022, algorithm 1): the mean of a buffer, stale updates weighing less."""

from collections.abc import Sequence

from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Step, Strategy
from fleet_protocol.aggregation_plan import AggregationPlan


def step(state: ServerState, buffer: Sequence[BufferedUpdate], plan: AggregationPlan) -> Step:
    """The weighted mean of the buffer."""
    weighted = [(update.weight(plan), update.delta) for update in buffer]
    return Step(contribution_of(weighted, state.weights.size).mean_delta())


FEDBUFF = Strategy(step)
