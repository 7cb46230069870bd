"""Checks a sample against its task's schema before it is stored. Pure.

One that comes before the schema is known is bounded, and judged by the same checks once the schema is here.
"""

import array
from collections.abc import Mapping
from dataclasses import replace

from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_row import Given, as_list, in_order
from fleet_protocol.sample_rules import ANY_NUMBER, INPUT, ValueRule, input_rules, label_rules
from fleet_protocol.sample_schema import qualified
from fleet_protocol.task_description import TaskDescription

MAX_VALUES_WITHOUT_SCHEMA = 256 * 1024
"""Inputs of one sample while its task's schema is not known: a picture of 295 x 295 in colour."""


def check_task(task: str, tasks: frozenset[str]) -> None:
    """Raise `ValueError` unless the device takes part in a sample's task."""
    if task not in tasks:
        raise ValueError(f"unknown task {task!r}; agent.toml lists {sorted(tasks)}")


def check_budget(budget: str, budgets: frozenset[str]) -> None:
    """Raise `ValueError` unless agent.toml has the budget that a sample names, where it names one."""
    if budget and budget not in budgets:
        raise ValueError(
            f"unknown budget {budget!r}; [privacy] of agent.toml lists {sorted(budgets)}: add it under budgets there,"
            " or name none"
        )


def check_unjudged(sample: Sample) -> None:
    """What can be said without a schema.

    Raises:
        ValueError: too many values, or some that no schema would take.
    """
    for name, values in (*_named(INPUT, sample.inputs), *_named("label", sample.label)):
        if len(values) > MAX_VALUES_WITHOUT_SCHEMA:
            raise ValueError(
                f"{name} has {len(values)} values; until the schema of {sample.task} is known, at most"
                f" {MAX_VALUES_WITHOUT_SCHEMA} are taken"
            )
        may_lack = name.startswith(INPUT)  # the schema may allow it
        rule = replace(ANY_NUMBER, name=name, count=len(values), may_lack=may_lack)
        _require(rule, values, sample.task)


def check_sample(sample: Sample, description: TaskDescription) -> tuple[bytes, int | bytes]:
    """Inputs as float32 in bytes, and the label: a class as a number, any other as float32 in bytes.

    21 and 21.0 are the same number, wherever one is taken.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    return check_inputs(sample, description), check_label(sample.label, description)


def check_label(given: Given, description: TaskDescription) -> int | bytes:
    """The label alone: a class as a number, any other as float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    label = _row(given, label_rules(description.each_label), description.task)
    return int(label[0]) if description.label.is_index else label.tobytes()


def check_inputs(sample: Sample, description: TaskDescription) -> bytes:
    """The inputs alone, as float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    return _row(sample.inputs, input_rules(description.each_input), sample.task).tobytes()


def _row(given: Given, rules: Mapping[str, ValueRule], task: str) -> "array.array[float]":
    """All values of inputs, or of labels, in their order."""
    row = array.array("f")
    for rule, values in in_order(given, rules, task):
        _require(rule, values, task)
        row.extend(values)
    return row


def _named(what: str, given: Given) -> list[tuple[str, list[float]]]:
    if isinstance(given, dict):
        return [(qualified(what, name), as_list(values)) for name, values in given.items()]
    return [(what, as_list(given))]


def _require(rule: ValueRule, values: list[float], task: str) -> None:
    if refused := rule.refusal(values, task):
        raise ValueError(refused)
