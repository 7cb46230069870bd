"""Synchronous federated averaging (McMahan et al. 2017, algorithm 1), as a baseline.

A version is a round: it ends when `buffer_size` of the devices asked have reported, or at its deadline with those that
have (over-selection and deadline: Bonawitz et al. 2019, section 2.2). Whoever comes later has trained for nothing: its
update is refused as stale, for `max_staleness` is 0.
"""

from collections.abc import Sequence

from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Step, Strategy
from fleet_protocol.aggregation_plan import AggregationPlan


def step(state: ServerState, buffer: Sequence[BufferedUpdate], _: AggregationPlan) -> Step:
    """The mean of the round, by samples."""
    weighted = [(float(update.samples), update.delta) for update in buffer]
    return Step(contribution_of(weighted, state.weights.size).mean_delta())


FEDAVG = Strategy(step)
