"""Samples for a simulated fleet that really trains."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle_runtime import sample_file
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError
from workbench.data.partition import dirichlet_parts

HELD_OUT_FRACTION = 0.2
FEWEST_SAMPLES = 8
"""Per device."""


def read_samples(data: str, task: TaskDescription) -> Samples:
    """`digits` of scikit-learn, or a file with `inputs` [N, *shape] and `labels` [N], classes.

    Raises:
        ConfigurationError: it can't be read, or doesn't fit the task.
    """
    if task.label.kind != "class":
        raise ConfigurationError(
            f"--data {data}: a simulation trains on classes alone; the labels of {task.task} are of kind"
            f" {task.label.kind!r}"
        )
    return _digits(task) if data == "digits" else sample_file.read_samples(Path(data), task)


def share_out(samples: Samples, devices: int, seed: int) -> tuple[Sequence[Samples], Samples]:
    """A part for each device, by a Dirichlet distribution per class, and what is held out.

    Raises:
        ConfigurationError: too many devices.
    """
    generator = np.random.default_rng((seed, 1))
    order = generator.permutation(len(samples))
    held_out, pooled = np.split(order, [round(HELD_OUT_FRACTION * len(order))])
    classes = samples.labels[pooled].astype(np.int64)
    parts = dirichlet_parts(classes, devices, generator, fewest=FEWEST_SAMPLES)
    return [samples.take(pooled[part]) for part in parts], samples.take(held_out)


def _digits(task: TaskDescription) -> Samples:
    from workbench.data.digits import CLASSES, read_digits  # noqa: PLC0415 - scikit-learn takes a second to import

    digits = read_digits()
    if (found := list(digits.inputs.shape[1:])) != task.input.shape or task.label.classes < CLASSES:
        raise ConfigurationError(
            f"--data digits: samples of shape {found} in {CLASSES} classes; {task.task} takes {task.input.shape} in"
            f" {task.label.classes}"
        )
    return digits
