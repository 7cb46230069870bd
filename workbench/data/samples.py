"""Samples for a simulated fleet that really trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError
from workbench.data.partition import dirichlet_parts

HELD_OUT_FRACTION = 0.2
FEWEST_SAMPLES = 8
"""Per device."""


@dataclass(frozen=True, slots=True)
class LabelledSamples:
    """`inputs` float32 [N, *shape]; `labels` int64 [N], classes."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """The given rows, as a device holds them."""
        return Samples(self.inputs[rows], self.labels[rows], 0)


def read_samples(data: str, task: TaskDescription) -> LabelledSamples:
    """`digits` of scikit-learn, or an .npz file with `inputs` [N, *shape] and `labels` [N], classes.

    Raises:
        ConfigurationError: it can't be read, or doesn't fit the task.
    """
    inputs, labels = _digits() if data == "digits" else _load(Path(data))
    shape = tuple(task.input.shape)
    if task.label.kind != "class" or inputs.shape[1:] != shape or labels.shape != inputs.shape[:1]:
        raise ConfigurationError(
            f"--data {data}: inputs {inputs.shape} and labels {labels.shape}; {task.task} takes samples of shape"
            f" {shape} with labels of kind {task.label.kind!r}, and a simulation trains on classes alone"
        )
    if not 0 <= labels.min(initial=0) <= labels.max(initial=0) < task.label.classes:
        raise ConfigurationError(f"--data {data}: labels must be 0 to {task.label.classes - 1}")
    return LabelledSamples(np.ascontiguousarray(inputs, np.float32), labels.astype(np.int64))


def share_out(samples: LabelledSamples, devices: int, seed: int) -> tuple[Sequence[Samples], Samples]:
    """A part for each device, by a Dirichlet distribution per class, and what is held out.

    Raises:
        ConfigurationError: too many devices.
    """
    generator = np.random.default_rng((seed, 1))
    order = generator.permutation(len(samples.labels))
    held_out, pooled = np.split(order, [round(HELD_OUT_FRACTION * len(order))])
    parts = dirichlet_parts(samples.labels[pooled], devices, generator, fewest=FEWEST_SAMPLES)
    return [samples.take(pooled[part]) for part in parts], samples.take(held_out)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from workbench.data.digits import read_digits  # noqa: PLC0415 - scikit-learn takes a second to import

    digits = read_digits()
    return digits.inputs, digits.labels


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["inputs"], file["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"--data {path}: not an .npz file with `inputs` and `labels` ({error})") from error
