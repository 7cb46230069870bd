"""Random samples for a task whose data are not at hand: inputs that vary together, and labels that follow from them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.bundle import InputSchema, TaskDescription
from fleet_protocol.sample_rules import input_rule

MOST_SAMPLES: Final = 512
MOST_VALUES: Final = 1 << 24
"""Of all inputs together, which are float32: 64 MiB."""
FACTORS: Final = 32
"""Measured inputs have few causes: each value is a mixture of so many, of falling weight, and a little noise."""
NOISE: Final = 0.1
CAUSES_OF_LABELS: Final = 8
"""Labels follow from the strongest factors alone."""
WAVES: Final = 16
WIDEST_RANGE: Final = 1000.0
"""Bounds further apart are there to keep out the absurd, and say nothing about where values lie."""

Matrix = NDArray[np.float64]


def random_samples(task: TaskDescription, seed: int = 0) -> Samples:
    """The same for the same schema and seed.

    Inputs lie around the middle of the schema's bounds, with a quarter of their distance as deviation. Where bounds
    say nothing, or the fleet's scale is awaited, they have mean 0 and deviation 1. Labels are a smooth function of what
    the inputs are made from; regression targets have mean 0 and deviation 1.
    """
    generator = np.random.default_rng(seed)
    count = max(2, min(MOST_SAMPLES, MOST_VALUES // task.input.size))
    factors = generator.standard_normal((count, FACTORS))
    inputs = _inputs(factors, task.input.size, generator)
    if task.scaling.inputs is None or not task.scaling.inputs.awaited:
        inputs = _placed(inputs, task.input)
    labels = _labels(factors, task, generator)
    return Samples(inputs.astype(np.float32).reshape(count, *task.input.shape), labels)


def _inputs(factors: Matrix, size: int, generator: np.random.Generator) -> Matrix:
    weights = 1 / np.sqrt(np.arange(1, FACTORS + 1))
    mixed = (factors * weights) @ generator.standard_normal((FACTORS, size))
    return _standardised(mixed + NOISE * mixed.std() * generator.standard_normal(mixed.shape))


def _placed(standard: Matrix, schema: InputSchema) -> Matrix:
    bounds = input_rule(schema)
    distance = bounds.highest - bounds.lowest
    if distance <= WIDEST_RANGE:
        standard = bounds.lowest + distance / 2 + distance / 4 * standard
    return np.clip(standard, bounds.lowest, bounds.highest)


def _labels(
    factors: Matrix, task: TaskDescription, generator: np.random.Generator
) -> NDArray[np.int64] | NDArray[np.float32]:
    waves = generator.standard_normal((CAUSES_OF_LABELS, WAVES)) / np.sqrt(CAUSES_OF_LABELS)
    heights = np.tanh(factors[:, :CAUSES_OF_LABELS] @ waves)
    values = _standardised(heights @ generator.standard_normal((WAVES, task.label.outputs)))
    if task.label.kind == "class":
        classes: NDArray[np.int64] = values.argmax(axis=1)
        return classes
    return (values > 0 if task.label.kind == "multi_label" else values).astype(np.float32)


def _standardised(values: Matrix) -> Matrix:
    deviations = values.std(axis=0)
    centred: Matrix = (values - values.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    return centred
