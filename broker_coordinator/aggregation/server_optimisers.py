"""Server optimisers: they take a strategy's direction for a negative gradient. Pure.

The adaptive ones are those of Reddi et al. 2021 ("Adaptive Federated Optimization", algorithm 2). With b1 =
`server_momentum`, b2 = `server_second_momentum` and t = `server_adaptivity`:

    m = b1 * m + (1 - b1) * direction
    adagrad  v = v + direction^2
    adam     v = b2 * v + (1 - b2) * direction^2
    yogi     v = v - (1 - b2) * direction^2 * sign(v - direction^2)
    movement = m / (sqrt(v) + t)

AMSGrad divides by the largest v so far (Reddi, Kale & Kumar 2018), as FADAS asks for. v begins at t^2.

Grafting (Agarwal et al. 2020) takes the direction of one optimiser and the length of another, so that no rate has to be
found for each task. v begins at 0:

    v = b2 * v + (1 - b2) * direction^2
    adapted = direction / (sqrt(v) + t * root mean square of sqrt(v))
    movement = |direction| * adapted / |adapted|
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.aggregation_plan import AggregationPlan, ServerOptimiser

Moments = NDArray[np.float32]
Vector = NDArray[np.float64]
Rule = Callable[[Sequence[Vector], Vector, AggregationPlan], Sequence[Vector]]
Movement = Callable[[Moments, Vector, AggregationPlan], Vector]


def _along_direction(_: Moments, direction: Vector, _plan: AggregationPlan) -> Vector:
    return direction


def _along_first(moments: Moments, _: Vector, _plan: AggregationPlan) -> Vector:
    first: Vector = moments[0].astype(np.float64)
    return first


def _adaptive(moments: Moments, _: Vector, plan: AggregationPlan) -> Vector:
    movement: Vector = moments[0].astype(np.float64)
    movement /= np.sqrt(moments[-1].astype(np.float64)) + plan.server_adaptivity
    return movement


def _grafted(moments: Moments, direction: Vector, plan: AggregationPlan) -> Vector:
    divisors = np.sqrt(moments[0].astype(np.float64))
    divisors += plan.server_adaptivity * _length(divisors) / math.sqrt(divisors.size)
    adapted = np.divide(direction, divisors, out=np.zeros_like(direction), where=divisors > 0)
    length = _length(adapted)
    return adapted * (_length(direction) / length) if length else direction


def _length(vector: Vector) -> float:
    """Euclidean, summed by numpy: what BLAS gives differs between processors, and replays must not."""
    return math.sqrt(np.sum(np.square(vector)))


@dataclass(frozen=True, slots=True)
class Optimiser:
    """Keeps `moments` vectors between versions; `rule` computes the next ones, and `movement` of these how the weights
    move.
    """

    moments: int
    rule: Rule
    movement: Movement

    def first_moments(self, size: int, plan: AggregationPlan) -> Moments:
        """Those of version 0, for a flat weight vector of `size` values: float32[moments, size]."""
        moments = np.zeros((self.moments, size), np.float32)
        moments[1:] = plan.server_adaptivity**2
        return moments

    def move(self, moments: Moments, direction: Vector, plan: AggregationPlan) -> tuple[Moments, Vector]:
        """The moments after one step, and the movement of the weights, float64, before the learning rate."""
        after = self.rule(list(moments.astype(np.float64)), direction, plan)
        kept = np.array(after, np.float32).reshape(self.moments, direction.size)
        return kept, self.movement(kept, direction, plan)


def _sgd(_: Sequence[Vector], _direction: Vector, _plan: AggregationPlan) -> Sequence[Vector]:
    return []


def _momentum(moments: Sequence[Vector], direction: Vector, plan: AggregationPlan) -> Sequence[Vector]:
    """Hsu et al. 2019: velocity = momentum * velocity + direction."""
    return [plan.server_momentum * moments[0] + direction]


def _second_alone(moments: Sequence[Vector], direction: Vector, plan: AggregationPlan) -> Sequence[Vector]:
    return [_second(moments[0], direction, plan)]


def _adagrad(moments: Sequence[Vector], direction: Vector, plan: AggregationPlan) -> Sequence[Vector]:
    return [_first(moments[0], direction, plan), moments[1] + direction**2]


def _adam(moments: Sequence[Vector], direction: Vector, plan: AggregationPlan) -> Sequence[Vector]:
    return [_first(moments[0], direction, plan), _second(moments[1], direction, plan)]


def _yogi(moments: Sequence[Vector], direction: Vector, plan: AggregationPlan) -> Sequence[Vector]:
    square = direction**2
    second = moments[1] - (1 - plan.server_second_momentum) * square * np.sign(moments[1] - square)
    return [_first(moments[0], direction, plan), second]


def _amsgrad(moments: Sequence[Vector], direction: Vector, plan: AggregationPlan) -> Sequence[Vector]:
    second = _second(moments[1], direction, plan)
    return [_first(moments[0], direction, plan), second, np.maximum(moments[2], second)]


def _first(first: Vector, direction: Vector, plan: AggregationPlan) -> Vector:
    return plan.server_momentum * first + (1 - plan.server_momentum) * direction


def _second(second: Vector, direction: Vector, plan: AggregationPlan) -> Vector:
    return plan.server_second_momentum * second + (1 - plan.server_second_momentum) * direction**2


OPTIMISERS: dict[ServerOptimiser, Optimiser] = {
    "sgd": Optimiser(0, _sgd, _along_direction),
    "momentum": Optimiser(1, _momentum, _along_first),
    "grafted": Optimiser(1, _second_alone, _grafted),
    "adagrad": Optimiser(2, _adagrad, _adaptive),
    "adam": Optimiser(2, _adam, _adaptive),
    "yogi": Optimiser(2, _yogi, _adaptive),
    "amsgrad": Optimiser(3, _amsgrad, _adaptive),
}
