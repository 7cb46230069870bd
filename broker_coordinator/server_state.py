"""What one version hands to the next, and the step between them. Pure.

    velocity = momentum * velocity + step
    weights = weights + learning_rate * velocity

A version is a function of the version before it and of the journalled updates in journal order, bit for bit: sums run
in float64 in that order, and what is kept between versions is float32, exactly as it is stored.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from broker_coordinator.aggregation import BufferedUpdate
from broker_coordinator.strategies import STRATEGIES, Remembered, remember
from fleet_protocol.bundle import AggregationPlan
from fleet_protocol.codec.sparse import FloatVector


@dataclass(frozen=True, slots=True)
class ServerState:
    """`weights` and the optimiser's `velocity`, both flat float32; `remembered` as strategies need it."""

    weights: FloatVector
    velocity: FloatVector
    remembered: Remembered = field(default_factory=dict)


def initial_state(weights: FloatVector) -> ServerState:
    """The state before the first update."""
    return ServerState(weights, np.zeros_like(weights))


def next_state(state: ServerState, buffer: Sequence[BufferedUpdate], plan: AggregationPlan) -> ServerState:
    """One step of SGD with momentum on the server, the strategy's step taking the gradient's place (Hsu 2019)."""
    step = STRATEGIES[plan.strategy](buffer, state.remembered, state.weights.size, plan)
    remembered = remember(state.remembered, buffer, state.weights.size, plan)
    velocity = (plan.server_momentum * state.velocity + step).astype(np.float32)
    weights = (state.weights + plan.server_learning_rate * velocity.astype(np.float64)).astype(np.float32)
    return ServerState(weights, velocity, remembered)


def replay(state: ServerState, updates: Iterable[BufferedUpdate], plan: AggregationPlan) -> Iterator[ServerState]:
    """The versions that follow `state` when `updates` arrive in this order; a last partial buffer makes none."""
    arriving = iter(updates)
    while len(buffer := list(islice(arriving, plan.buffer_size))) == plan.buffer_size:
        state = next_state(state, buffer, plan)
        yield state
