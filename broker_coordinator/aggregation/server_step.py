"""The step from one version to the next. Pure.

    partial = strategy.partial(state, updates)      of each part of the buffer; partials add
    step = strategy.finish(state, partial)
    weights = weights + learning_rate * state.step * step.rate * optimiser(step.direction)     except `step.stays`

A version is a function of the version before it and of the journalled updates in journal order, bit for bit: sums run
in float64 in that order, and what is kept between versions is float32, exactly as it is stored.
"""

from collections.abc import Sequence

import numpy as np

from broker_coordinator.aggregation.chosen_strategy import strategy_of
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_optimisers import OPTIMISERS
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import Partial, Step
from broker_coordinator.aggregation.strategies.posterior import first_moments
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec.sparse import FloatVector, IndexVector


def initial_state(weights: FloatVector, plan: AggregationPlan, factor: IndexVector | None = None) -> ServerState:
    """Version 0. Of a strategy that keeps it, the places of what devices' factors are of; None: all."""
    if strategy_of(plan).keeps_first:
        return ServerState(0, weights, first_moments(weights, np.arange(weights.size) if factor is None else factor))
    return ServerState(0, weights, OPTIMISERS[plan.server_optimiser].first_moments(weights.size, plan))


def next_state(state: ServerState, buffer: Sequence[BufferedUpdate], plan: AggregationPlan) -> ServerState:
    """The version that follows when `buffer` is aggregated."""
    return finish(state, partial_of(state, buffer, plan), plan)


def partial_of(state: ServerState, updates: Sequence[BufferedUpdate], plan: AggregationPlan) -> Partial:
    """What a part of the buffer adds to the version after `state`; no updates add nothing.

    Added up one update at a time, in order, a buffer's partials are that of the whole to the last bit. In other
    groupings the float64 sums may differ in rounding: by at most n * 2**-50 times the largest value, for n updates.
    """
    partial: Partial = strategy_of(plan).partial(state, updates, plan)
    return partial


def finish(state: ServerState, partial: Partial, plan: AggregationPlan) -> ServerState:
    """The version after `state`, from the sum of its buffer's partials."""
    step = strategy_of(plan).finish(state, partial, plan)
    del partial  # as large as the weights, and the optimiser needs that room a few times over
    return advanced(state, step, plan)


def advanced(state: ServerState, step: Step, plan: AggregationPlan) -> ServerState:
    """The version after `state`, by a strategy's step."""
    if strategy_of(plan).keeps_first:
        moments, movement = state.moments, step.direction
    else:
        moments, movement = OPTIMISERS[plan.server_optimiser].move(state.moments, step.direction, plan)
    if step.stays is not None:
        movement[step.stays] = 0
        moments[:, step.stays] = state.moments[:, step.stays]
    weights = (state.weights + plan.server_learning_rate * state.step * step.rate * movement).astype(np.float32)
    return ServerState(state.version + 1, weights, moments, step.remembered, state.step, state.clip)
