"""SCAFFOLD's control variates (Karimireddy et al. 2020, algorithm 1 with option II), for devices out of step. Pure.

With x the version that a round begins with, y the weights behind its K steps, and c the fleet's direction:

    y   = y - learning rate * (gradient at y + correction),   correction = c - c_i, within its bound
    c_i = (x - y) / (learning rate * K) - correction

The second line is option II, c_i - c + (x - y) / (K * learning rate), whatever the correction was. A device keeps c_i
alone. It reads c off the versions: the coordinator moves them by the mean of what devices have learned, and that is the
mean of their gradients times their steps and learning rate.
"""

from typing import Final

import numpy as np

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.training_plan import TrainingPlan

LONGEST_CORRECTION: Final = 4.0
"""At most so many times as long as the gradient of the round's first mini-batch (docs/decisions/drift-is-read-off.md).
"""


def reach(plan: TrainingPlan, steps: int) -> float:
    """How many times the learning rate a gradient moves the weights that is the same in each of so many steps."""
    decay = 0.0 if plan.optimiser == "sgd" else plan.momentum
    first = 2 if plan.optimiser == "nesterov" else 1
    return sum((1 - decay ** (step + first)) / (1 - decay) for step in range(steps))


def gradient_of(moved: FloatVector, plan: TrainingPlan, steps: int) -> FloatVector:
    """The mean gradient f32[T] of so many steps that have moved the weights by `moved` f32[T]."""
    return (moved / np.float32(-plan.learning_rate * reach(plan, steps))).astype(np.float32)


def correction(
    fleet_moved: FloatVector, own: FloatVector, first: FloatVector, plan: TrainingPlan, steps: int
) -> FloatVector | None:
    """What is added to each of a round's `steps`, f32[T]; None where nothing can be.

    `fleet_moved` f32[T] is how far one version is from the one before it, on average, since the device's last round;
    `own` f32[T] its control variate, and `first` f32[T] the gradient of its first mini-batch now. The fleet's
    direction, which is a mean of the devices', counts as no longer than the device's own: a server's optimiser may take
    longer steps than the mean, and a version that was set back is no direction.
    """
    fleet = at_most(gradient_of(fleet_moved, plan, steps), length(own))
    found = at_most(fleet - own, LONGEST_CORRECTION * length(first))
    return found if np.isfinite(found).all() else None


def control_variate(moved: FloatVector, corrected: FloatVector | None, plan: TrainingPlan, steps: int) -> FloatVector:
    """The device's control variate f32[T] behind a round that has moved the weights by `moved` f32[T]."""
    mean = gradient_of(moved, plan, steps)
    return mean if corrected is None else mean - corrected


def length(vector: FloatVector) -> float:
    """Its Euclidean norm."""
    return float(np.linalg.norm(vector.astype(np.float64)))


def at_most(vector: FloatVector, limit: float) -> FloatVector:
    """The vector, scaled down where it is longer than `limit`."""
    found = length(vector)
    return vector if found <= limit or not found else (vector * np.float32(limit / found)).astype(np.float32)
