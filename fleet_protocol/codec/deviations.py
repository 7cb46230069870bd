"""The Gaussian that a version of a task with `[posterior]` is: a mean and a standard deviation of each weight. Pure.

A version f32[P + H] has the model's P values, and behind them a precision for each of the H among them that have a
Gaussian. The others have one value, and the deviation 0.
"""

from collections.abc import Sequence

import numpy as np

from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.codec.weights import read_weights
from fleet_protocol.parameter import Parameter
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.task_description import TaskDescription


def read_distribution(version: bytes, task: TaskDescription, plan: PosteriorPlan) -> tuple[FloatVector, FloatVector]:
    """Means and standard deviations, f32[P] each, out of a version's safetensors file.

    Raises:
        ProtocolError: as `read_weights`.
    """
    mean, precision = np.split(read_weights(version, task.version.parameters), [task.parameter_count])
    spread = np.zeros_like(mean)
    spread[gaussian_places(task, plan)] = deviations(precision, prior_of(task, plan))
    return mean, spread


def gaussian_places(task: TaskDescription, plan: PosteriorPlan) -> IndexVector:
    """Where in the model the values lie that have a Gaussian, int64[H], ascending."""
    return _places(task.parameters, plan)[0]


def prior_of(task: TaskDescription, plan: PosteriorPlan) -> FloatVector:
    """The prior's standard deviation of each of these, f32[H]."""
    return _places(task.parameters, plan)[1]


def factor_places(task: TaskDescription, plan: PosteriorPlan) -> IndexVector:
    """Where a device's factor lies in an update f32[P + H]: its weighted means, then its precisions, int64[2H]."""
    places = gaussian_places(task, plan)
    return np.concatenate([places, task.parameter_count + np.arange(places.size)])


def deviations(precision: FloatVector, prior: FloatVector) -> FloatVector:
    """Of precisions f32[H] as a version has them; rounding may have brought one below that of the `prior` deviations,
    f32[H].
    """
    deviation: FloatVector = prior * np.sqrt(prior / np.maximum(precision, prior))
    return deviation


def _places(parameters: Sequence[Parameter], plan: PosteriorPlan) -> tuple[IndexVector, FloatVector]:
    sizes = [each.size for each in parameters]
    every = np.repeat(np.array(plan.deviations(parameters), np.float32), sizes)
    places = np.flatnonzero(every)
    return places, every[places]
