"""The optimisers of workbench/export/graphs/optimisers.py on numpy: only gradients are a graph's.

They see a gradient that is noised already, so whatever they make of it tells no more than that did.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge_agent.training.engine import Rates
from fleet_protocol.codec.sparse import FloatVector

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants: Kingma & Ba 2015, algorithm 1."""


@dataclass(slots=True)
class OptimiserState:
    """What is carried from step to step: vectors f32[P], 0 at first, and how many steps there were."""

    first: FloatVector
    second: FloatVector
    steps: int = field(default=0)

    @classmethod
    def of(cls, weights: FloatVector) -> "OptimiserState":
        """Before the first step."""
        return cls(np.zeros_like(weights), np.zeros_like(weights))


Update = Callable[[FloatVector, FloatVector, OptimiserState, Rates, float], FloatVector]
"""From weights f32[P], gradient f32[P], state, rates and momentum to the new weights f32[P]; the state moves."""


def sgd(
    weights: FloatVector, gradient: FloatVector, _state: OptimiserState, rates: Rates, _momentum: float
) -> FloatVector:
    """Plain stochastic gradient descent."""
    return _moved(weights, gradient + np.float32(rates.weight_decay) * weights, rates)


def momentum(
    weights: FloatVector, gradient: FloatVector, state: OptimiserState, rates: Rates, momentum: float
) -> FloatVector:
    """Heavy ball: Polyak 1964, without dampening."""
    decayed = gradient + np.float32(rates.weight_decay) * weights
    state.first = np.float32(momentum) * state.first + decayed
    return _moved(weights, state.first, rates)


def nesterov(
    weights: FloatVector, gradient: FloatVector, state: OptimiserState, rates: Rates, momentum: float
) -> FloatVector:
    """Nesterov's momentum: Sutskever et al. 2013, equation 4, as rewritten for the looked-ahead weights."""
    decayed = gradient + np.float32(rates.weight_decay) * weights
    state.first = np.float32(momentum) * state.first + decayed
    return _moved(weights, decayed + np.float32(momentum) * state.first, rates)


def adam(
    weights: FloatVector, gradient: FloatVector, state: OptimiserState, rates: Rates, _momentum: float
) -> FloatVector:
    """Adam with weight decay in the gradient: Kingma & Ba 2015, algorithm 1."""
    return _moved(weights, _adam_step(gradient + np.float32(rates.weight_decay) * weights, state), rates)


def adamw(
    weights: FloatVector, gradient: FloatVector, state: OptimiserState, rates: Rates, _momentum: float
) -> FloatVector:
    """Adam with weight decay beside the gradient: Loshchilov & Hutter 2019, algorithm 2."""
    return _moved(weights, _adam_step(gradient, state) + np.float32(rates.weight_decay) * weights, rates)


UPDATES: Final[dict[str, Update]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adamw,
}


def _moved(weights: FloatVector, direction: FloatVector, rates: Rates) -> FloatVector:
    return weights - np.float32(rates.learning_rate) * direction


def _adam_step(gradient: FloatVector, state: OptimiserState) -> FloatVector:
    """The step before the learning rate."""
    state.steps += 1
    state.first = np.float32(BETA_1) * state.first + np.float32(1 - BETA_1) * gradient
    state.second = np.float32(BETA_2) * state.second + np.float32(1 - BETA_2) * gradient * gradient
    first = state.first / np.float32(1 - BETA_1**state.steps)
    second = state.second / np.float32(1 - BETA_2**state.steps)
    step: FloatVector = first / (np.sqrt(second) + np.float32(EPSILON))
    return step
