"""Tasks whose devices have a model of their own, on the graphs and weights of models/digits."""

import msgspec
import numpy as np

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.task_description import TaskDescription
from tests.support.digits_rounds import TASK

NAMES = [each.name for each in TASK.parameters]
HEAD = tuple(NAMES[-2:])
"""The last layer of the digits' model: weight and bias."""


def personal(base: TaskDescription = TASK, *, sgd: bool = True, **settings: object) -> TaskDescription:
    """The task with such a table; with plain SGD, as its graphs are for."""
    training = msgspec.structs.replace(base.training, optimiser="sgd") if sgd else base.training
    return msgspec.structs.replace(base, training=training, personal=PersonalPlan(**settings))


def entries(task: TaskDescription, names: tuple[str, ...]) -> np.ndarray:
    """Which entries of the flat vector the parameters of these names have, bool [P]."""
    return np.repeat([each.name in names for each in task.parameters], [each.size for each in task.parameters])


def moved(before: FloatVector, after: FloatVector, task: TaskDescription) -> set[str]:
    """Names of the parameters that are not bit for bit as before."""
    return {name for name in NAMES if (before != after)[entries(task, (name,))].any()}
