"""Which of many samples in memory a task does not take, by the rules of `fleet_protocol.sample_rules`."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.bundle import InputSchema, TaskDescription
from fleet_protocol.sample_rules import ValueRule, input_rule, label_rule


@dataclass(frozen=True, slots=True)
class Misfits:
    """`rows` are those of the samples that don't fit, in order; `reason` says what is wrong with the first."""

    rows: NDArray[np.intp]
    reason: str


def find_misfits(
    inputs: NDArray[Any], labels: NDArray[Any], schema: InputSchema, task: TaskDescription
) -> Misfits | None:
    """The samples with an input beyond `schema` or, if there is none, with a label that the task does not take."""
    return find_input_misfits(inputs, schema, task.task) or _misfits(labels, label_rule(task.label), task.task)


def find_input_misfits(inputs: NDArray[Any], schema: InputSchema, task: str) -> Misfits | None:
    """The same for inputs alone, or for features; any numeric dtype [N, ...]."""
    return _misfits(inputs, input_rule(schema), task)


def _misfits(values: NDArray[Any], rule: ValueRule, task: str) -> Misfits | None:
    """Bounds are compared in the dtype of `values`: those of float32 are rounded as the values were."""
    table = values.reshape(len(values), math.prod(values.shape[1:]))
    fitting = (table >= rule.lowest) & (table <= rule.highest)
    if rule.may_lack:
        fitting |= np.isnan(table)
    if rule.whole:
        fitting &= table == np.floor(table)
    rows = np.flatnonzero(~fitting.all(axis=1))
    if not rows.size:
        return None
    place = int(np.argmin(fitting[rows[0]]))
    return Misfits(rows, rule.misfit(place, table[rows[0], place].item(), task))
