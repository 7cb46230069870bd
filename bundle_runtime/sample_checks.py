"""Which of many samples in memory a task does not take, by the rules of `fleet_protocol.sample_rules`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.sample_rules import ValueRule, input_rules, label_rules
from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class Misfits:
    """`rows` are those of the samples that don't fit, in order; `reason` says what is wrong with the first."""

    rows: NDArray[np.intp]
    reason: str


def find_misfits(
    inputs: NDArray[Any], labels: NDArray[Any], schemas: Mapping[str, InputSchema], task: TaskDescription
) -> Misfits | None:
    """The samples with an input beyond its schema or, if there is none, with a label that the task does not take."""
    rules = label_rules(task.each_label)
    return find_input_misfits(inputs, schemas, task.task) or _misfits(labels, rules, task.task)


def find_input_misfits(inputs: NDArray[Any], schemas: Mapping[str, InputSchema], task: str) -> Misfits | None:
    """The same for inputs alone, or for features; any numeric dtype [N, ...]."""
    return _misfits(inputs, input_rules(schemas), task)


def _misfits(values: NDArray[Any], rules: Mapping[str, ValueRule], task: str) -> Misfits | None:
    table = values.reshape(len(values), math.prod(values.shape[1:]))
    fitting = np.empty(table.shape, np.bool_)
    starts = np.cumsum([0, *(rule.count for rule in rules.values())])
    for rule, start in zip(rules.values(), starts, strict=False):
        fitting[:, start : start + rule.count] = _fits(table[:, start : start + rule.count], rule)
    rows = np.flatnonzero(~fitting.all(axis=1))
    if not rows.size:
        return None
    column = int(np.argmin(fitting[rows[0]]))
    number = int(np.searchsorted(starts, column, side="right")) - 1
    place = column - int(starts[number])
    return Misfits(rows, list(rules.values())[number].misfit(place, table[rows[0], column].item(), task))


def _fits(table: NDArray[Any], rule: ValueRule) -> NDArray[np.bool_]:
    """Bounds are compared in the dtype of `table`: those of float32 are rounded as the values were."""
    fitting: NDArray[np.bool_] = (table >= rule.lowest) & (table <= rule.highest)
    if rule.may_lack:
        fitting |= np.isnan(table)
    if rule.whole:
        fitting &= table == np.floor(table)
    return fitting
