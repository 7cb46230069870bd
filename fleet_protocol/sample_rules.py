"""What one sample of a task may hold: how many values, within which bounds, and the words of a refusal. Pure.

The sample socket, the check of stored samples and that of sample files all ask here, so they refuse the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fleet_protocol.sample_schema import InputSchema, LabelSchema, qualified

LARGEST_FLOAT32: Final = 3.4028234663852886e38

INPUT: Final = "input"
NOT_TRAINABLE: Final = "it is not a number that can be trained on: leave the sample out, or replace it"
INPUT_MAY_LACK: Final = "; a task takes samples that lack inputs with [input] missing = 'mean' in task.toml"


@dataclass(frozen=True, slots=True)
class ValueRule:
    """`count` values, each from `lowest` to `highest` (both float32), and a whole number where `whole`; or NaN, where
    they `may_lack`.

    `name` is what one is called, `wanted` says which are taken, and `remedy` what to do about others.
    """

    name: str
    count: int
    lowest: float
    highest: float
    whole: bool
    wanted: str
    remedy: str
    may_lack: bool = False

    def fits(self, value: float) -> bool:
        """Whether one value is taken."""
        fits = self.lowest <= value <= self.highest and (not self.whole or value % 1 == 0)
        return fits or (self.may_lack and _is_nan(value))

    def refusal(self, values: Sequence[float], task: str) -> str | None:
        """What does not fit the task, and what would; None where all of one sample's values do."""
        if len(values) != self.count:
            return self.wrong_count(len(values), task)
        misfits = (self.misfit(place, value, task) for place, value in enumerate(values) if not self.fits(value))
        return next(misfits, None)

    def misfit(self, place: int, value: float, task: str) -> str:
        """What to say of the value at `place`, which doesn't fit."""
        where = self.name if self.count == 1 else f"{self.name} {place}"
        remedy = self.remedy if isinstance(value, int) or math.isfinite(value) else NOT_TRAINABLE
        if self.name.startswith(INPUT) and _is_nan(value):
            remedy += INPUT_MAY_LACK
        return f"{where} is {_shown(value)}; {task} takes {self.wanted}; {remedy}"

    def wrong_count(self, found: int, task: str) -> str:
        """What to say of a sample with another number of values."""
        if self.count and not found:
            return f"{self.name} is missing; {task} takes {self.wanted}"
        return f"{self.name} has {found} values; {task} takes {self.count}"


ANY_NUMBER: Final = ValueRule(
    "value",
    1,
    -LARGEST_FLOAT32,
    LARGEST_FLOAT32,
    whole=False,
    wanted=f"{-LARGEST_FLOAT32:g} to {LARGEST_FLOAT32:g}, which is what float32 can hold",
    remedy="send finite numbers",
)


def input_rules(inputs: Mapping[str, InputSchema]) -> dict[str, ValueRule]:
    """For each input of one sample, or the features that a backbone made of them, in the order of their row."""
    return {name: input_rule(schema, qualified("inputs", name) if name else INPUT) for name, schema in inputs.items()}


def label_rules(labels: Mapping[str, LabelSchema]) -> dict[str, ValueRule]:
    """For the label of each head, in the order of their row."""
    return {
        name: replace(label_rule(schema), name=f"label.{name}") if name else label_rule(schema)
        for name, schema in labels.items()
    }


def input_rule(schema: InputSchema, name: str = INPUT) -> ValueRule:
    """For one input."""
    lowest, highest = max(schema.minimum, -LARGEST_FLOAT32), min(schema.maximum, LARGEST_FLOAT32)
    wanted = f"{'whole numbers from ' * schema.whole}{lowest:g} to {highest:g}"
    remedy = f"scale the inputs to these bounds, or correct [{name}] in task.toml"
    if schema.whole:
        remedy = f"number what they name within these bounds, or correct [{name}] in task.toml"
    return ValueRule(
        name,
        schema.size,
        lowest,
        highest,
        whole=schema.whole,
        wanted=wanted,
        remedy=remedy,
        may_lack=schema.missing == "mean",
    )


def label_rule(schema: LabelSchema) -> ValueRule:
    """For the values of one label; an index of a class is one value."""
    return _LABEL_RULES[schema.kind](schema)


def _class_rule(schema: LabelSchema) -> ValueRule:
    last = schema.classes - 1
    wanted = f"a whole number from 0 to {last}"
    return ValueRule("label", schema.size, 0, last, whole=True, wanted=wanted, remedy="number the classes from 0 on")


def _multi_label_rule(schema: LabelSchema) -> ValueRule:
    wanted = "0 or 1 for each class"
    return ValueRule("label", schema.size, 0, 1, whole=True, wanted=wanted, remedy="give 1 where it applies, else 0")


def _regression_rule(schema: LabelSchema) -> ValueRule:
    return replace(ANY_NUMBER, name="label", count=schema.size)


def _unlabelled_rule(_: LabelSchema) -> ValueRule:
    return replace(ANY_NUMBER, name="label", count=0)


_LABEL_RULES: Final = {
    "class": _class_rule,
    "multi_label": _multi_label_rule,
    "regression": _regression_rule,
    "reconstruction": _unlabelled_rule,
    "none": _unlabelled_rule,
}


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _shown(value: float) -> str:
    """Nine digits tell any two float32 numbers apart. JSON may hold an integer that float64 can't."""
    return f"{value:.9g}" if abs(value) <= LARGEST_FLOAT32 or isinstance(value, float) else "beyond float32"
