"""Checks the values of stored samples against their task's schema, which intake may not have known yet."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.bundle import InputSchema, TaskDescription


class UnfitSamplesError(Exception):
    """Some stored samples can't be trained on; `unfit` are their ids."""

    def __init__(self, message: str, unfit: list[int]) -> None:
        super().__init__(message)
        self.unfit = unfit


def check_samples(samples: Samples, identifiers: list[int], task: TaskDescription) -> None:
    """Every value finite and within the schema's bounds, every label one that the task has.

    Raises:
        UnfitSamplesError: how many are not, and what is wrong with the first.
    """
    check_inputs(samples.inputs, identifiers, task.trained_input, task.task)
    if (unfit := np.flatnonzero(_bad_labels(samples, task))).size:
        found = f"its label is {samples.labels[unfit[0]]}, {task.task} takes {_wanted(task)}"
        raise _unfit(unfit, identifiers, found)


def check_inputs(inputs: NDArray[np.float32], identifiers: list[int], schema: InputSchema, task: str) -> None:
    """Every value finite and within the schema's bounds.

    Raises:
        UnfitSamplesError: how many samples are not, and what is wrong with the first.
    """
    values = inputs.reshape(len(identifiers), -1)
    with np.errstate(over="ignore"):  # a bound beyond float32 is none
        lowest, highest = np.float32(schema.minimum), np.float32(schema.maximum)
    bad = ~((values >= lowest) & (values <= highest) & np.isfinite(values))
    if (unfit := np.flatnonzero(bad.any(axis=1))).size:
        place = int(np.argmax(bad[unfit[0]]))
        found = f"input {place} is {values[unfit[0], place]:g}, {task} takes {lowest:g} to {highest:g}"
        raise _unfit(unfit, identifiers, found)


def _unfit(rows: NDArray[np.intp], identifiers: list[int], found: str) -> UnfitSamplesError:
    return UnfitSamplesError(
        f"{rows.size} of {len(identifiers)} stored samples can't be trained on; the first is sample"
        f" {identifiers[rows[0]]}: {found}",
        [identifiers[row] for row in rows],
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
