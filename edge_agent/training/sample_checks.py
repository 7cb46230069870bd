"""Stored samples against their task's schema, value by value; what the sample gate could not know yet is found here."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.engine import Samples
from fleet_protocol.bundle import TaskDescription


class UnfitSamplesError(Exception):
    """Some stored samples can't be trained on; `unfit` are their ids."""

    def __init__(self, message: str, unfit: list[int]) -> None:
        super().__init__(message)
        self.unfit = unfit


def check_samples(samples: Samples, identifiers: list[int], task: TaskDescription) -> None:
    """Every input finite and within the schema's bounds, every label one that the task has.

    Raises:
        UnfitSamplesError: how many are not, and what is wrong with the first.
    """
    inputs = samples.inputs.reshape(len(identifiers), -1)
    with np.errstate(over="ignore"):  # a bound beyond float32 is none
        lowest, highest = np.float32(task.input.minimum), np.float32(task.input.maximum)
    bad_inputs = ~((inputs >= lowest) & (inputs <= highest) & np.isfinite(inputs))
    bad_labels = _bad_labels(samples, task)
    unfit = np.flatnonzero(bad_inputs.any(axis=1) | bad_labels)
    if not unfit.size:
        return
    first = unfit[0]
    if bad_inputs[first].any():
        place = int(np.argmax(bad_inputs[first]))
        found = f"input {place} is {inputs[first, place]:g}, {task.task} takes {lowest:g} to {highest:g}"
    else:
        found = f"its label is {samples.labels[first]}, {task.task} takes {_wanted(task)}"
    raise UnfitSamplesError(
        f"{unfit.size} of {len(identifiers)} stored samples can't be trained on; the first is sample"
        f" {identifiers[first]}: {found}",
        [identifiers[row] for row in unfit],
    )


def _bad_labels(samples: Samples, task: TaskDescription) -> NDArray[np.bool_]:
    """bool [N]."""
    labels = samples.labels
    if task.label.kind == "class":
        return (labels < 0) | (labels >= task.label.classes)
    is_bad = ~np.isin(labels, (0, 1)) if task.label.kind == "multi_label" else ~np.isfinite(labels)
    bad_rows: NDArray[np.bool_] = np.asarray(is_bad.any(axis=1))
    return bad_rows


def _wanted(task: TaskDescription) -> str:
    if task.label.kind == "class":
        return f"0 to {task.label.classes - 1}"
    return "0 or 1 for each class" if task.label.kind == "multi_label" else "finite numbers"
