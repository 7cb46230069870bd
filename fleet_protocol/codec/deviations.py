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
    return mean, deviations(precision, prior_of(task, plan))


def prior_of(task: TaskDescription, plan: PosteriorPlan) -> FloatVector:
    """The prior's standard deviation of each weight, f32[P]."""
    sizes = [each.size for each in task.parameters]
    return np.repeat(np.array(plan.deviations(task.parameters), np.float32), sizes)


def deviations(precision: FloatVector, prior: FloatVector) -> FloatVector:
    """Of precisions f32[P] as a version has them; rounding may have brought one below that of the `prior` deviations,
    f32[P].
    """
    deviation: FloatVector = prior * np.sqrt(prior / np.maximum(precision, prior))
    return deviation
