"""FADAS (Wang et al. 2024, algorithm 1): FedBuff's mean under an adaptive optimiser, slower while updates are late.

    rate = 1                                            if the largest staleness in the buffer is at most c
           min(1, 1 / (server_learning_rate * largest)) otherwise

c is `delay_threshold`. The paper's optimiser is "amsgrad"; any other adaptive one goes as well.
"""

from collections.abc import Sequence

from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Step, Strategy
from fleet_protocol.aggregation_plan import AggregationPlan


def step(state: ServerState, buffer: Sequence[BufferedUpdate], plan: AggregationPlan) -> Step:
    """The mean of the buffer by samples, whatever its staleness, with the delay-adaptive rate."""
    mean = contribution_of([(float(update.samples), update.delta) for update in buffer], state.weights.size)
    largest = max(update.staleness for update in buffer)
    rate = 1.0 if largest <= plan.delay_threshold else min(1.0, 1 / (plan.server_learning_rate * largest))
    return Step(mean.mean_delta(), rate)


FADAS = Strategy(step)
