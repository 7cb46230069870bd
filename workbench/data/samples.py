"""Samples for a simulated fleet that really trains."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime import sample_file
from bundle_runtime.sample_checks import find_misfits
from bundle_runtime.samples import Samples
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelKind, runs
from fleet_protocol.task_description import TaskDescription
from workbench.data.named_readings import holds_readings, prepare_table
from workbench.data.partition import DIRICHLET_CONCENTRATION, dirichlet_parts, even_parts

HELD_OUT_FRACTION = 0.2
FEWEST_SAMPLES = 8
"""Per device."""
REGRESSIONSTRATA = 10
"""Devices differ in how large their numbers are: as classes, by tenths of the samples."""


def read_samples(data: str | Path, task: TaskDescription) -> Samples:
    """`digits` of scikit-learn, or a file of samples (`bundle_runtime.sample_file`) or of named readings.

    Raises:
        ConfigurationError: it can't be read, or holds what no device of the task would take.
    """
    if data == "digits":
        return _digits(task)
    path = Path(data)
    return prepare_table(path, task).samples if holds_readings(path, task) else sample_file.read_samples(path, task)


def share_out(
    samples: Samples,
    task: TaskDescription,
    devices: int,
    seed: int,
    *,
    concentration: float = DIRICHLET_CONCENTRATION,
) -> tuple[Sequence[Samples], Samples]:
    """A part for each device, and what is held out.

    Devices differ in their labels, by a Dirichlet distribution for each of them: the class, the combination of labels,
    or the tenth in which the first number lies; the smaller `concentration`, the more. Samples without a label are
    split evenly.

    Raises:
        ConfigurationError: too many devices.
    """
    generator = np.random.default_rng((seed, 1))
    order = generator.permutation(len(samples))
    held_out, pooled = np.split(order, [round(HELD_OUT_FRACTION * len(order))])
    if not held_out.size:
        raise ConfigurationError(f"{len(samples)} samples are too few to hold some out; give at least 3")
    strata = _strata(samples.labels[pooled], task)
    if np.unique(strata).size > 1:
        parts = dirichlet_parts(strata, devices, generator, fewest=FEWEST_SAMPLES, concentration=concentration)
    else:
        parts = even_parts(len(pooled), devices, fewest=FEWEST_SAMPLES)
    return [samples.take(pooled[part]) for part in parts], samples.take(held_out)


def _strata(labels: NDArray[np.generic], task: TaskDescription) -> NDArray[np.int64]:
    """Of several heads, the first decides what devices differ in."""
    _, label, place = next(runs(task.each_label))
    return STRATA[label.kind](labels.reshape(len(labels), -1)[:, place])


def _classes(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """The class, or the one that most positions have."""
    classes = labels.astype(np.int64).reshape(len(labels), -1)
    counts = np.stack([(classes == each).sum(axis=1) for each in range(classes.max(initial=0) + 1)])
    most: NDArray[np.int64] = counts.argmax(axis=0)
    return most


def _combinations(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = np.unique(labels, axis=0, return_inverse=True)[1]
    return numbers.reshape(-1).astype(np.int64)


def _tenths(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    ranks: NDArray[np.int64] = np.argsort(np.argsort(labels[:, 0], kind="stable"), kind="stable")
    return ranks * REGRESSIONSTRATA // len(labels)


def _one_stratum(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.zeros(len(labels), np.int64)


STRATA: Final[Mapping[LabelKind, Callable[[NDArray[np.generic]], NDArray[np.int64]]]] = {
    "class": _classes,
    "multi_label": _combinations,
    "regression": _tenths,
    "reconstruction": _one_stratum,
    "none": _one_stratum,
}
"""What devices differ in, as a number for each label."""


def _digits(task: TaskDescription) -> Samples:
    from workbench.data.digits import CLASSES, read_digits  # noqa: PLC0415 - scikit-learn takes a second to import

    digits = read_digits()
    found = list(digits.inputs.shape[1:])
    if found != task.input.shape or task.label.kind != "class" or task.label.classes < CLASSES:
        raise ConfigurationError(
            f"--data digits: samples of shape {found} in {CLASSES} classes; {task.task} takes {task.input.shape} with"
            f" a label of kind {task.label.kind!r}; give a file of its own samples"
        )
    if misfits := find_misfits(digits.inputs, digits.labels, task.each_input, task):
        raise ConfigurationError(f"--data digits: {misfits.reason}")
    return digits
