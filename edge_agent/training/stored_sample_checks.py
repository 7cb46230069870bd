"""Checks the values of stored samples against their task's schema, which intake may not have known yet."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.sample_checks import Misfits, find_input_misfits, find_misfits
from bundle_runtime.samples import Samples
from fleet_protocol.task_description import TaskDescription


class UnfitSamplesError(Exception):
    """Some stored samples can't be trained on; `unfit` are their ids."""

    def __init__(self, message: str, unfit: list[int]) -> None:
        super().__init__(message)
        self.unfit = unfit


def check_samples(samples: Samples, identifiers: list[int], task: TaskDescription) -> None:
    """Every value finite and within the schema's bounds, every label one that the task has.

    `samples` are as training takes them: features where the task has a backbone.

    Raises:
        UnfitSamplesError: how many are not, and what is wrong with the first.
    """
    _raise_for(find_misfits(samples.inputs, samples.labels, task.each_trained_input, task), identifiers)


def check_inputs(inputs: NDArray[np.float32], identifiers: list[int], task: TaskDescription) -> None:
    """Every value finite and within the schema's bounds, in front of the backbone.

    Raises:
        UnfitSamplesError: how many samples are not, and what is wrong with the first.
    """
    _raise_for(find_input_misfits(inputs, task.each_input, task.task), identifiers)


def _raise_for(misfits: Misfits | None, identifiers: list[int]) -> None:
    if misfits is not None:
        raise UnfitSamplesError(
            f"{misfits.rows.size} of {len(identifiers)} stored samples can't be trained on; the first is sample"
            f" {identifiers[misfits.rows[0]]}: {misfits.reason}",
            [identifiers[row] for row in misfits.rows],
        )
