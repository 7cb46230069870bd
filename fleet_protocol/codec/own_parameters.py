"""What of a model is a device's own, where the task's `[personal]` names parameters that never leave it. Pure.

    model f32[P] = a version, with the device's own values in the places of its own parameters

Kept values are float32, tensor behind tensor in the order of the flat vector; of a whole model, all of them.
"""

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription


def own_places(task: TaskDescription) -> NDArray[np.bool_]:
    """Which entries of the flat vector are each device's own, bool [P]."""
    own = [each.name in task.own_parameters for each in task.parameters]
    return np.repeat(np.array(own, np.bool_), [each.size for each in task.parameters])


def with_own(version: FloatVector, kept: bytes, task: TaskDescription) -> FloatVector:
    """A version f32[P] with the device's own values in it. Where it has kept none, or what it kept is damaged or of
    another model, it begins with the version's, which are the initial ones.
    """
    if not task.own_parameters:
        return version
    places = own_places(task)
    own = read_kept(kept, int(places.sum()))
    if own is None:
        return version
    model = version.copy()
    model[places] = own
    return model


def with_shared_only(trained: FloatVector, before: FloatVector, task: TaskDescription) -> FloatVector:
    """What a round has `trained`, f32[P], with the device's own entries as they were `before` it: what may be sent."""
    return np.where(own_places(task), before, trained) if task.own_parameters else trained


def own_of(model: FloatVector, task: TaskDescription) -> bytes:
    """The device's own values of a model f32[P], to be kept."""
    return model[own_places(task)].tobytes()


def device_model(version: FloatVector, kept: bytes, task: TaskDescription) -> FloatVector:
    """The model f32[P] that a device answers with: its own where it has kept one, else what the fleet shares."""
    if task.personal is None and task.gossip is None:
        return version
    if task.personal is not None and not task.personal.keeps_whole_model:
        return with_own(version, kept, task)
    own = read_kept(kept, task.parameter_count)
    return version if own is None else own


def read_kept(kept: bytes, count: int) -> FloatVector | None:
    """So many kept values, f32[count]; None where they are not that, or not finite."""
    if not kept or len(kept) != count * np.dtype(np.float32).itemsize:
        return None
    values = np.frombuffer(kept, np.float32)
    return values if np.isfinite(values).all() else None
