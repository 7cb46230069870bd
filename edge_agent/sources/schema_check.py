"""Checks a sample against its task's schema before it is stored. Pure.

While the schema is not known yet, what it could not check is checked by `training/stored_sample_checks.py`.
"""

import array
from dataclasses import replace

import msgspec

from fleet_protocol.bundle import LabelSchema, TaskDescription
from fleet_protocol.sample_rules import ANY_NUMBER, ValueRule, input_rule, label_rule

ANY_CLASS = LabelSchema(classes=2**63)
"""As many as a database can tell apart."""


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """One sample of one task, with its label, as a source hands it over."""

    task: str
    inputs: list[float]
    label: int | float | list[float] | None = None


def check_sample(
    sample: Sample, tasks: frozenset[str], description: TaskDescription | None
) -> tuple[bytes, int | bytes]:
    """Inputs as float32 in bytes, and the label, checked against the task's schema if that is known.

    A class index is a number, any other label float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    if sample.task not in tasks:
        raise ValueError(f"unknown task {sample.task!r}; agent.toml lists {sorted(tasks)}")
    label = sample.label if isinstance(sample.label, list) else [] if sample.label is None else [sample.label]
    if description is None:
        is_class = isinstance(sample.label, int)
        rules = _any("input", sample.inputs), label_rule(ANY_CLASS) if is_class else _any("label", label)
    else:
        rules = input_rule(description.input), label_rule(description.label)
        is_class = description.label.kind == "class"
    for rule, values in zip(rules, (sample.inputs, label), strict=True):
        if refused := rule.refusal(values, sample.task):
            raise ValueError(refused)
    inputs = array.array("f", sample.inputs).tobytes()
    return inputs, int(label[0]) if is_class else array.array("f", label).tobytes()


def _any(name: str, values: list[float]) -> ValueRule:
    return replace(ANY_NUMBER, name=name, count=len(values))
