"""Buffered asynchronous aggregation, FedBuff (Nguyen et al. 2022, algorithm 1), with server momentum.

    weight = samples * (1 + staleness) ** -exponent
    velocity = momentum * velocity + sum(weight * delta) / sum(weight)
    weights = weights + learning_rate * velocity

A version is a function of the version before it and of the journalled updates in journal order, bit for bit: sums run
in float64 in that order, and what is kept between versions is float32, exactly as it is stored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.bundle import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector


def staleness_weight(staleness: int, exponent: float) -> float:
    """How much an update counts that started `staleness` versions ago: 1 for a fresh one (FedBuff, section 3.3)."""
    return float((1 + staleness) ** -exponent)


@dataclass(frozen=True, slots=True)
class BufferedUpdate:
    """A journalled update on its way into a version."""

    delta: SparseUpdate
    samples: int
    staleness: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """A partial aggregate. Contributions add, in any order and grouping: so shards and regions merge.

    `total_delta` is the sum of weight times delta, float64, as long as the flat weight vector.
    """

    total_delta: NDArray[np.float64]
    weight: float

    def __add__(self, other: "Contribution") -> "Contribution":
        return Contribution(self.total_delta + other.total_delta, self.weight + other.weight)

    def mean_delta(self) -> NDArray[np.float64]:
        """The weighted mean; zero where nothing weighs anything."""
        return self.total_delta / self.weight if self.weight > 0 else np.zeros_like(self.total_delta)


def contribution_of(updates: Iterable[BufferedUpdate], size: int, staleness_exponent: float) -> Contribution:
    """The partial aggregate of `updates` for a flat weight vector of `size` values."""
    total_delta, total_weight = np.zeros(size), 0.0
    for update in updates:
        weight = update.samples * staleness_weight(update.staleness, staleness_exponent)
        total_delta[update.delta.indices] += weight * update.delta.values.astype(np.float64)
        total_weight += weight
    return Contribution(total_delta, total_weight)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What one version hands to the next: `weights` and the optimiser's `velocity`, both flat float32."""

    weights: FloatVector
    velocity: FloatVector


def initial_state(weights: FloatVector) -> ServerState:
    """The state before the first update."""
    return ServerState(weights, np.zeros_like(weights))


def next_state(state: ServerState, contribution: Contribution, plan: AggregationPlan) -> ServerState:
    """One step of SGD with momentum on the server, the mean delta taking the gradient's place (FedAvgM, Hsu 2019)."""
    velocity = (plan.server_momentum * state.velocity + contribution.mean_delta()).astype(np.float32)
    weights = (state.weights + plan.server_learning_rate * velocity.astype(np.float64)).astype(np.float32)
    return ServerState(weights, velocity)


def replay(state: ServerState, updates: Iterable[BufferedUpdate], plan: AggregationPlan) -> Iterator[ServerState]:
    """The versions that follow `state` when `updates` arrive in this order; a last partial buffer makes none."""
    arriving = iter(updates)
    while len(buffer := list(islice(arriving, plan.buffer_size))) == plan.buffer_size:
        state = next_state(state, contribution_of(buffer, state.weights.size, plan.staleness_exponent), plan)
        yield state
