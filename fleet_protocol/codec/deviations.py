"""The Gaussian that a version of a task with `[posterior]` is: a mean and a standard deviation of each weight. Pure."""

import numpy as np

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.codec.weights import read_weights
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.task_description import TaskDescription


def read_distribution(version: bytes, task: TaskDescription, plan: PosteriorPlan) -> tuple[FloatVector, FloatVector]:
    """Means and standard deviations, f32[P] each, out of a version's safetensors file.

    Raises:
        ProtocolError: as `read_weights`.
    """
    mean, precision = np.split(read_weights(version, task.version.parameters), 2)
    return mean, deviations(precision, plan)


def deviations(precision: FloatVector, plan: PosteriorPlan) -> FloatVector:
    """Of precisions f32[P] as a version has them; rounding may have brought one below the prior's."""
    prior = np.float32(plan.prior_deviation)
    deviation: FloatVector = prior * np.sqrt(prior / np.maximum(precision, prior))
    return deviation
