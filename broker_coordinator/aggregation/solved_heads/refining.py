"""The task whose rounds go on from a solved head: the same bundle, whose versions are made from updates. Pure."""

import numpy as np
from msgspec.structs import replace

from broker_coordinator.aggregation.solved_heads.head import UNSEEN_SCORE
from bundle_runtime.bundle import Bundle, with_description
from fleet_protocol.bundle_files import WEIGHTS_FILE, blob_hash
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import UPDATE
from fleet_protocol.task_description import TaskDescription


def refined(bundle: Bundle, solved: bytes) -> Bundle:
    """The bundle with the version `solved`, a safetensors file, as its own, and with what its `[training]`, `[update]`
    and `[aggregation]` say of rounds.

    Raises:
        ConfigurationError: the task has no solved head.
    """
    description = bundle.description
    if description.solved_head is None:
        raise ConfigurationError(
            f"task {description.task!r} has no [solved_head] to go on from: its versions are made from"
            f" {description.versions_from} already"
        )
    weights = write_weights(
        _with_every_class(read_weights(solved, description.parameters), description), description.parameters
    )
    files = {**bundle.files, WEIGHTS_FILE: weights}
    in_rounds = replace(
        description,
        solved_head=None,
        versions_from=UPDATE.name,
        files={**description.files, WEIGHTS_FILE: blob_hash(weights)},
    )
    return with_description(Bundle(description, files), in_rounds)


def _with_every_class(weights: FloatVector, task: TaskDescription) -> FloatVector:
    """The head, where a class that no device had scores as the others do on average: training could not lift its
    `UNSEEN_SCORE` in any number of steps.
    """
    classes = task.label.classes
    table = weights[:-classes].reshape(classes, -1).copy()
    bias = weights[-classes:].copy()
    unseen = bias == np.float32(UNSEEN_SCORE)
    if unseen.any() and not unseen.all():
        table[unseen] = table[~unseen].mean(axis=0)
        bias[unseen] = bias[~unseen].mean()
    return np.concatenate([table.ravel(), bias])
