"""FedAsync (Xie et al. 2019, algorithm 1): every single update mixes a device's whole model into the server's.

    weights = (1 - a) * weights + a * model_i,  a = server_learning_rate * staleness_weight

A device sends the difference to the version it began with, so its model is that version plus the difference; the last
versions are remembered for that. The paper's three staleness functions are `staleness_weighting`.
"""

from collections.abc import Iterable

import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate, staleness_weight
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy, Updates, in_order
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec.sparse import FloatVector


def finish(state: ServerState, updates: Updates, plan: AggregationPlan) -> Step:
    """From the server's model to that of the one device in the buffer."""
    (update,) = updates
    # A rollback that came between receipt and aggregation can push the base out of what is remembered.
    base: FloatVector = state.remembered.get(update.base_version, state.weights)
    to_model = base.astype(np.float64) - state.weights
    to_model[update.delta.indices] += update.delta.values
    return Step(to_model, staleness_weight(update.staleness, plan), remember(state, updates, plan))


def remember(state: ServerState, _: Iterable[BufferedUpdate], plan: AggregationPlan) -> Remembered:
    """The weights of the versions that an admissible update can still be based on, by number."""
    oldest = state.version + 1 - plan.max_staleness
    kept = {number: weights for number, weights in state.remembered.items() if number >= oldest}
    return kept | {state.version: state.weights} if state.version >= oldest else kept


FEDASYNC = Strategy(in_order, finish, remember, Recall.WEIGHTS)
