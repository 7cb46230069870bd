"""CA2FL (Wang et al. 2024, algorithm 2): FedBuff, calibrated by what the absent devices sent last.

    direction = mean over all h_i + weighted mean over the buffer (delta_i - h_i)

h_i is what device i sent last, 0 before its first update. Devices that see different classes then pull at every
version, not only at those whose buffer they happen to be in.
"""

from collections.abc import Sequence

from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.last_updates import LastUpdates, remember_last
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy
from fleet_protocol.aggregation_plan import AggregationPlan


def step(state: ServerState, buffer: Sequence[BufferedUpdate], plan: AggregationPlan) -> Step:
    """See above; the first mean is weighted by samples."""
    last: LastUpdates = state.remembered
    size = state.weights.size
    weighted = [(update.weight(plan), update) for update in buffer]
    fresh = contribution_of([(weight, update.delta) for weight, update in weighted], size)
    replaced = contribution_of(
        [(weight, last[update.device].delta) for weight, update in weighted if update.device in last], size
    )
    everyone = contribution_of([(float(update.samples), update.delta) for update in last.values()], size)
    return Step(everyone.mean_delta() + (fresh.total_delta - replaced.total_delta) / fresh.weight)


CA2FL = Strategy(step, remember_last, Recall.LAST_UPDATES)
