"""Checks a sample against its task's schema before it is stored. Pure.

While the schema is not known yet, what it could not check is checked by `training/stored_sample_checks.py`.
"""

import array
import math

import msgspec

from fleet_protocol.bundle import LabelSchema, TaskDescription

LARGEST_FLOAT32 = 3.4028234663852886e38


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """One sample of one task, with its label, as a source hands it over."""

    task: str
    inputs: list[float]
    label: int | float | list[float] | None = None


def check_sample(
    sample: Sample, tasks: frozenset[str], description: TaskDescription | None
) -> tuple[bytes, int | bytes]:
    """Inputs as float32 in bytes, and the label, checked against the task's schema if that is known.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    if sample.task not in tasks:
        raise ValueError(f"unknown task {sample.task!r}; agent.toml lists {sorted(tasks)}")
    lowest, highest = -LARGEST_FLOAT32, LARGEST_FLOAT32
    if description is not None:
        expected = description.input
        if len(sample.inputs) != expected.size:
            raise ValueError(f"{len(sample.inputs)} inputs; {sample.task} takes {expected.size} {expected.shape}")
        lowest, highest = max(lowest, expected.minimum), min(highest, expected.maximum)
    for position, value in enumerate(sample.inputs):
        if not (lowest <= value <= highest) or math.isnan(value):
            raise ValueError(f"input {position} is {value:g}; {sample.task} takes {lowest:g} to {highest:g}")
    return array.array("f", sample.inputs).tobytes(), check_label(
        sample, None if description is None else description.label
    )


def check_label(sample: Sample, schema: LabelSchema | None) -> int | bytes:
    """A class index unchanged, any other label as float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    label = sample.label
    if isinstance(label, int) if schema is None else schema.kind == "class":
        classes = 2**63 if schema is None else schema.classes
        if not isinstance(label, int) or not 0 <= label < classes:
            raise ValueError(f"label {label} is out of range; {sample.task} takes 0 to {classes - 1}")
        return label
    values = [] if label is None else label if isinstance(label, list) else [label]
    if schema is not None and len(values) != schema.outputs:
        raise ValueError(f"label has {len(values)} values; {sample.task} takes {schema.outputs}")
    for position, value in enumerate(values):
        if not abs(value) <= LARGEST_FLOAT32:
            raise ValueError(f"label {position} is {value:g}, which float32 can't hold")
        if schema is not None and schema.kind == "multi_label" and value not in (0, 1):
            raise ValueError(f"label {position} is {value:g}; {sample.task} takes 0 or 1 for each class")
    return array.array("f", values).tobytes()
