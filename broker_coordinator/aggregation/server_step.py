"""The step from one version to the next. Pure.

    step = strategy(state, buffer)
    weights = weights + learning_rate * step.rate * optimiser(step.direction)

A version is a function of the version before it and of the journalled updates in journal order, bit for bit: sums run
in float64 in that order, and what is kept between versions is float32, exactly as it is stored.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_optimisers import OPTIMISERS
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import STRATEGIES
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec.sparse import FloatVector


def initial_state(weights: FloatVector, plan: AggregationPlan) -> ServerState:
    """Version 0."""
    return ServerState(0, weights, OPTIMISERS[plan.server_optimiser].first_moments(weights.size, plan))


def next_state(state: ServerState, buffer: Sequence[BufferedUpdate], plan: AggregationPlan) -> ServerState:
    """The version that follows when `buffer` is aggregated."""
    strategy = STRATEGIES[plan.strategy]
    step = strategy.step(state, buffer, plan)
    moments, movement = OPTIMISERS[plan.server_optimiser].move(state.moments, step.direction, plan)
    weights = (state.weights + plan.server_learning_rate * step.rate * movement).astype(np.float32)
    return ServerState(state.version + 1, weights, moments, strategy.remember(state, buffer, plan))


def replay(state: ServerState, updates: Iterable[BufferedUpdate], plan: AggregationPlan) -> Iterator[ServerState]:
    """The versions that follow `state` when `updates` arrive in this order; a last partial buffer makes none."""
    arriving = iter(updates)
    while len(buffer := list(islice(arriving, plan.buffer_size))) == plan.buffer_size:
        state = next_state(state, buffer, plan)
        yield state
