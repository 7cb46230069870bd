"""The optimisers that a recipe may name, on the flat vector of all trainable parameters.

Each is one function from weights, gradient and state to new weights and state, as torch.optim does it with its
default settings. State starts at zero in every round and never leaves the graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants: Kingma & Ba 2015, algorithm 1."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What an optimiser is told besides the gradient: f32[] each, but for `momentum`, which the graph is made for."""

    learning_rate: Tensor
    weight_decay: Tensor | None
    momentum: float


Update = Callable[[Tensor, Tensor, Sequence[Tensor], Rates], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Optimiser:
    """`update` takes weights f32[P], gradient f32[P], state and rates; it returns the weights and the new state.

    The state is `vectors` times f32[P], then `scalars` times f32[].
    """

    update: Update
    vectors: int = 0
    scalars: int = 0


def sgd(weights: Tensor, gradient: Tensor, _state: Sequence[Tensor], rates: Rates) -> tuple[Tensor, ...]:
    """Plain stochastic gradient descent."""
    return (weights - rates.learning_rate * _decayed(gradient, weights, rates),)


def momentum(weights: Tensor, gradient: Tensor, state: Sequence[Tensor], rates: Rates) -> tuple[Tensor, ...]:
    """Heavy ball: Polyak 1964, without dampening."""
    velocity = rates.momentum * state[0] + _decayed(gradient, weights, rates)
    return weights - rates.learning_rate * velocity, velocity


def nesterov(weights: Tensor, gradient: Tensor, state: Sequence[Tensor], rates: Rates) -> tuple[Tensor, ...]:
    """Nesterov's momentum: Sutskever et al. 2013, equation 4, as rewritten for the looked-ahead weights."""
    gradient = _decayed(gradient, weights, rates)
    velocity = rates.momentum * state[0] + gradient
    return weights - rates.learning_rate * (gradient + rates.momentum * velocity), velocity


def adam(weights: Tensor, gradient: Tensor, state: Sequence[Tensor], rates: Rates) -> tuple[Tensor, ...]:
    """Adam with weight decay in the gradient: Kingma & Ba 2015, algorithm 1."""
    step, state = _adam_step(_decayed(gradient, weights, rates), state)
    return weights - rates.learning_rate * step, *state


def adamw(weights: Tensor, gradient: Tensor, state: Sequence[Tensor], rates: Rates) -> tuple[Tensor, ...]:
    """Adam with weight decay beside the gradient: Loshchilov & Hutter 2019, algorithm 2."""
    step, state = _adam_step(gradient, state)
    return weights - rates.learning_rate * _decayed(step, weights, rates), *state


OPTIMISERS: dict[str, Optimiser] = {
    "sgd": Optimiser(sgd),
    "momentum": Optimiser(momentum, vectors=1),
    "nesterov": Optimiser(nesterov, vectors=1),
    "adam": Optimiser(adam, vectors=2, scalars=2),
    "adamw": Optimiser(adamw, vectors=2, scalars=2),
}


def clipped(gradient: Tensor, limit: Tensor) -> Tensor:
    """The gradient, scaled down where its Euclidean norm exceeds `limit` f32[]; infinity leaves it as it is."""
    return gradient * torch.clamp(limit / torch.linalg.vector_norm(gradient), max=1)


def _decayed(gradient: Tensor, weights: Tensor, rates: Rates) -> Tensor:
    return gradient if rates.weight_decay is None else gradient + rates.weight_decay * weights


def _adam_step(gradient: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """The step before the learning rate. The bias is `1 - beta**t`, which is what an average of ones comes to.

    Averaged so, it keeps all of float32's digits; subtracted from 1, the second one loses four of them at first.
    """
    first, second, first_bias, second_bias = state
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    first_bias = BETA_1 * first_bias + (1 - BETA_1)
    second_bias = BETA_2 * second_bias + (1 - BETA_2)
    step = (first / first_bias) / (torch.sqrt(second / second_bias) + EPSILON)
    return step, (first, second, first_bias, second_bias)
