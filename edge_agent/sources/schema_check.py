"""Checks a sample against its task's schema before it is stored. Pure.

One that comes before the schema is known is bounded, and judged by the same checks once the schema is here.
"""

import array
import math

from edge_agent.sources.sample import Sample
from fleet_protocol.bundle import LabelSchema, TaskDescription

LARGEST_FLOAT32 = 3.4028234663852886e38

MAX_VALUES_WITHOUT_SCHEMA = 256 * 1024
"""Inputs of one sample while its task's schema is not known: a picture of 295 x 295 in colour."""


def check_task(sample: Sample, tasks: frozenset[str]) -> None:
    """Raise `ValueError` unless the device takes part in the sample's task."""
    if sample.task not in tasks:
        raise ValueError(f"unknown task {sample.task!r}; agent.toml lists {sorted(tasks)}")


def check_unjudged(sample: Sample) -> None:
    """What can be said without a schema.

    Raises:
        ValueError: too many values, or some that no schema would take.
    """
    labels = sample.label if isinstance(sample.label, list) else []
    if max(len(sample.inputs), len(labels)) > MAX_VALUES_WITHOUT_SCHEMA:
        raise ValueError(
            f"{max(len(sample.inputs), len(labels))} values; until the schema of {sample.task} is known, at most"
            f" {MAX_VALUES_WITHOUT_SCHEMA} are taken"
        )
    _check_inputs(sample, -LARGEST_FLOAT32, LARGEST_FLOAT32)
    _check_finite(_label_values(sample.label))


def check_sample(sample: Sample, description: TaskDescription) -> tuple[bytes, int | bytes]:
    """Inputs as float32 in bytes, and the label: a class as a number, any other as float32 in bytes.

    21 and 21.0 are the same number, wherever one is taken.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    expected = description.input
    if len(sample.inputs) != expected.size:
        raise ValueError(f"{len(sample.inputs)} inputs; {sample.task} takes {expected.size} {expected.shape}")
    _check_inputs(sample, max(-LARGEST_FLOAT32, expected.minimum), min(LARGEST_FLOAT32, expected.maximum))
    return array.array("f", sample.inputs).tobytes(), check_label(sample, description.label)


def check_label(sample: Sample, schema: LabelSchema) -> int | bytes:
    """A class index as a number, any other label as float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    values = _label_values(sample.label)
    _check_finite(values)
    if schema.kind == "class":
        return _class_of(sample, schema.classes)
    if len(values) != schema.outputs:
        found = "label is missing" if sample.label is None else f"label has {len(values)} values"
        raise ValueError(f"{found}; {sample.task} takes {_label_in_words(schema)}")
    for position, value in enumerate(values):
        if schema.kind == "multi_label" and value not in (0, 1):
            raise ValueError(f"label {position} is {value:g}; {sample.task} takes 0 or 1 for each class")
    return array.array("f", values).tobytes()


def _class_of(sample: Sample, classes: int) -> int:
    label, wanted = sample.label, f"{sample.task} takes one class, 0 to {classes - 1}"
    if label is None:
        raise ValueError(f"label is missing; {wanted}")
    if isinstance(label, list):
        raise ValueError(f"label is a list of {len(label)} values; {wanted}")  # noqa: TRY004 - a sample's, not ours
    if not label.is_integer():
        raise ValueError(f"label {label:g} is no whole number; {wanted}")
    if not 0 <= label < classes:
        raise ValueError(f"label {label:g} is out of range; {wanted}")
    return int(label)


def _label_in_words(schema: LabelSchema) -> str:
    if schema.kind == "reconstruction":
        return "none: its inputs are what is learned"
    numbers = "number" if schema.outputs == 1 else "numbers"
    return f"{schema.outputs} {numbers}" + (", 0 or 1 for each class" if schema.kind == "multi_label" else "")


def _label_values(label: float | list[float] | None) -> list[float]:
    if label is None:
        return []
    return label if isinstance(label, list) else [label]


def _check_inputs(sample: Sample, lowest: float, highest: float) -> None:
    for position, value in enumerate(sample.inputs):
        if not lowest <= value <= highest:
            if not math.isfinite(value):
                raise ValueError(_no_number("input", position, value))
            raise ValueError(f"input {position} is {value:g}; {sample.task} takes {lowest:g} to {highest:g}")


def _check_finite(values: list[float]) -> None:
    for position, value in enumerate(values):
        if not abs(value) <= LARGEST_FLOAT32:
            if not math.isfinite(value):
                raise ValueError(_no_number("label", position, value))
            raise ValueError(f"label {position} is {value:g}, which float32 can't hold")


def _no_number(what: str, position: int, value: float) -> str:
    name = "NaN" if math.isnan(value) else "infinite, or beyond every floating-point number"
    return f"{what} {position} is {name}: not a number that can be trained on; leave the sample out, or replace it"
