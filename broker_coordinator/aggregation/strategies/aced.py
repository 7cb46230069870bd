"""ACED: at every version the mean over the last update of every device, unless it is too old.

All-client engagement with a delay-aware cache: device i takes part in version t if its last update began with a version
of at least t - `cached_staleness`. Slow devices then weigh as much as fast ones, and a device that left stops counting.
With a `buffer_size` of 1 a version follows every update, as published.
"""

from collections.abc import Sequence

from broker_coordinator.aggregation.bounds import bounded
from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.last_updates import bounds_of, remember_last
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy, Updates, Weighted, in_order
from fleet_protocol.aggregation_plan import AggregationPlan


def weighted(state: ServerState, updates: Sequence[BufferedUpdate], plan: AggregationPlan) -> Weighted:
    """What is not too old, by samples, within the bounds of what all devices sent last."""
    oldest = state.version - plan.cached_staleness
    cached = remember_last(state, updates, plan)
    engaged = [update for update in cached.values() if update.base_version >= oldest]
    return bounded(engaged, bounds_of(cached))


def finish(state: ServerState, updates: Updates, plan: AggregationPlan) -> Step:
    """The mean; zero where every update is too old."""
    total = contribution_of(weighted(state, updates, plan), state.weights.size)
    return Step(total.mean_delta(), remembered=remember_last(state, updates, plan), stays=total.nobodys())


ACED = Strategy(in_order, finish, remember_last, Recall.LAST_UPDATES, weighted=weighted)
