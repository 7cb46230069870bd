"""Checks a sample against its task's schema before it is stored. Pure.

One that comes before the schema is known is bounded, and judged by the same checks once the schema is here.
"""

import array
from dataclasses import replace

from fleet_protocol.bundle import TaskDescription
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_rules import ANY_NUMBER, INPUT, ValueRule, input_rule, label_rule

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
    for name, values in ((INPUT, sample.inputs), ("label", _label_values(sample))):
        if len(values) > MAX_VALUES_WITHOUT_SCHEMA:
            raise ValueError(
                f"{name} has {len(values)} values; until the schema of {sample.task} is known, at most"
                f" {MAX_VALUES_WITHOUT_SCHEMA} are taken"
            )
        rule = replace(ANY_NUMBER, name=name, count=len(values), may_lack=name == INPUT)  # the schema may allow it
        _require(rule, values, sample.task)


def check_sample(sample: Sample, description: TaskDescription) -> tuple[bytes, int | bytes]:
    """Inputs as float32 in bytes, and the label: a class as a number, any other as float32 in bytes.

    21 and 21.0 are the same number, wherever one is taken.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    inputs = check_inputs(sample, description)
    label = _label_values(sample)
    _require(label_rule(description.label), label, sample.task)
    return inputs, int(label[0]) if description.label.kind == "class" else array.array("f", label).tobytes()


def check_inputs(sample: Sample, description: TaskDescription) -> bytes:
    """The inputs alone, as float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    _require(input_rule(description.input), sample.inputs, sample.task)
    return array.array("f", sample.inputs).tobytes()


def _label_values(sample: Sample) -> list[float]:
    label = sample.label
    return label if isinstance(label, list) else [] if label is None else [label]


def _require(rule: ValueRule, values: list[float], task: str) -> None:
    if refused := rule.refusal(values, task):
        raise ValueError(refused)
