"""Random samples for a task whose data are not at hand: inputs that vary together, and labels that follow from them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.sample_rules import input_rule
from fleet_protocol.sample_schema import InputSchema, LabelSchema, runs
from fleet_protocol.task_description import TaskDescription

MOST_SAMPLES: Final = 512
MOST_VALUES: Final = 1 << 24
"""Of all inputs together, which are float32: 64 MiB."""
FACTORS: Final = 32
"""Measured inputs have few causes: each value is a mixture of so many, of falling weight, and a little noise. Of fewer
values, no more than there are: else what labels follow from could not be seen in them."""
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
    factors = generator.standard_normal((count, min(FACTORS, task.input.size)))
    inputs = _inputs(factors, task.input.size, generator)
    is_awaited = task.scaling.inputs is not None and task.scaling.inputs.awaited
    for _, schema, place in runs(task.each_input):
        if schema.whole or not is_awaited:
            inputs[:, place] = _placed(inputs[:, place], schema)
    labels = [_labels(factors, label, generator) for label in task.each_label.values()]
    row = np.concatenate(labels, axis=1)
    kept = row[:, 0].astype(np.int64) if task.label.is_index else row.astype(np.float32)
    return Samples(inputs.astype(np.float32).reshape(count, *task.input.shape), kept)


def _inputs(factors: Matrix, size: int, generator: np.random.Generator) -> Matrix:
    weights = 1 / np.sqrt(np.arange(1, factors.shape[1] + 1))
    mixed = (factors * weights) @ generator.standard_normal((factors.shape[1], size))
    return _standardised(mixed + NOISE * mixed.std() * generator.standard_normal(mixed.shape))


def _placed(standard: Matrix, schema: InputSchema) -> Matrix:
    bounds = input_rule(schema)
    distance = bounds.highest - bounds.lowest
    if distance <= WIDEST_RANGE or schema.whole:
        standard = bounds.lowest + distance / 2 + distance / 4 * standard
    return np.clip(np.rint(standard) if schema.whole else standard, bounds.lowest, bounds.highest)


def _labels(factors: Matrix, label: LabelSchema, generator: np.random.Generator) -> Matrix:
    """[N, values] in the order of the row."""
    causes = factors[:, :CAUSES_OF_LABELS]
    waves = generator.standard_normal((causes.shape[1], WAVES)) / np.sqrt(causes.shape[1])
    heights = np.tanh(causes @ waves)
    values = _standardised(heights @ generator.standard_normal((WAVES, label.outputs)))
    if label.kind == "class":
        classes: Matrix = values.reshape(len(values), label.classes, label.size).argmax(axis=1)
        return classes
    return (values > 0).astype(np.float64) if label.kind == "multi_label" else values


def _standardised(values: Matrix) -> Matrix:
    deviations = values.std(axis=0)
    centred: Matrix = (values - values.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    return centred
