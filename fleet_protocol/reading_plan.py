"""What samples of named readings are made of: fields, window, scale, and where a label is found. Pure.

Every device of a task prepares its samples by this plan, so it is a part of the bundle (docs/readings.md).
"""

import math
from collections.abc import Collection
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.configuration import PositiveInt, Seconds
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_READING_FIELDS, MAX_WINDOW_VALUES
from fleet_protocol.sample_schema import FieldName, InputSchema, LabelSchema
from fleet_protocol.scaling import MOST_DEVIATIONS
from fleet_protocol.without_effect import UsedBy, check_used

RESERVED: Final = ("time", "id")
"""Members of a reading that are no fields: when it was taken, and what a later label names it by."""

STEPS_OF_A_GAP: Final = 2.5
"""Where the plan does not say how long a gap may be: one reading may be lost, and the next be half a step late."""

Range = Annotated[list[float], msgspec.Meta(max_length=2)]


class ReadingField(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One named value of a reading."""

    kind: Literal["number", "category", "boolean"] = "number"
    """`number`: within `range`. `category`: one of `values`, an input for each, 1 for the one that it is and else 0.
    `boolean`: true or false, 1 or 0, on or off, yes or no."""
    unit: str = ""
    """What a number is measured in, as people write it: `°C`. A reading that names another unit is refused."""
    range: Range = []
    """Lowest and highest number that can be true, such as those of the sensor's data sheet: others are refused."""
    usual_range: Range = []
    """Of a number: what becomes -1 to 1 with `scaling` `ranges`; what lies outside counts as its nearer end. Left out:
    `range`."""
    values: Annotated[list[str], msgspec.Meta(max_length=MAX_READING_FIELDS)] = []
    """Of a category: each by its text. Of a label, the first is class 0."""

    @property
    def width(self) -> int:
        """Inputs that it becomes."""
        return len(self.values) if self.kind == "category" else 1

    @property
    def scale(self) -> tuple[float, float]:
        """Of a number: what becomes -1 and 1."""
        lowest, highest = self.usual_range or self.range
        return lowest, highest


class WindowPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A sample holds the last readings, oldest first, and not one alone."""

    readings: PositiveInt
    """How many."""
    step_seconds: Seconds
    """From one to the next. A reading that comes less than half a step after the one before is left out."""
    longest_gap_seconds: Seconds | None = None
    """A longer time without a reading is a gap. Left out: two and a half steps."""
    gap: Literal["restart", "hold"] = "restart"
    """What follows a gap: the window begins again (`restart`), or the reading before stands for those that are missing
    (`hold`), unless they would fill the window."""

    @property
    def gap_seconds(self) -> float:
        """A longer time without a reading is a gap."""
        return self.longest_gap_seconds or STEPS_OF_A_GAP * self.step_seconds


class LabelPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the label of a sample is found."""

    field: FieldName
    """The field that holds it."""
    found: Literal["in_reading", "by_id", "by_time", "later"] = "in_reading"
    """`in_reading`: in the newest reading of the sample. `by_id`: in a later message with the same `id`. `by_time`: in
    a later message whose `time` is at most `within_seconds` from the reading's. `later`: the field's value in the first
    reading after `after_seconds`, for forecasts."""
    after_seconds: Seconds | None = None
    """For `later`: how far ahead a forecast looks."""
    within_seconds: Seconds = 60.0
    """For `by_time` and `later`: how much the times may differ; for `later`, how much later it may be."""
    wait_seconds: Seconds = 86_400.0
    """For `by_id` and `by_time`: a sample whose label has not come after this time is dropped."""


class ReadingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How readings, whose values have names, become samples (docs/readings.md). [input] follows, and is left out."""

    fields: Annotated[dict[FieldName, ReadingField], msgspec.Meta(min_length=1, max_length=MAX_READING_FIELDS)]
    """A table for each value that readings have, by its name."""
    inputs: Annotated[list[FieldName], msgspec.Meta(max_length=MAX_READING_FIELDS)] = []
    """The fields that the model takes, in this order. Left out: all, but the label's unless that is found `later`."""
    scaling: Literal["ranges", "device", "off"] = "ranges"
    """What numbers become before the graphs see them. `ranges`: -1 to 1. `device`: mean 0 and deviation 1 of what this
    device has read so far, for sensors that differ from device to device. `off`: as they are."""
    window: WindowPlan | None = None
    label: LabelPlan | None = None

    @property
    def input_fields(self) -> dict[str, ReadingField]:
        """Those that the model takes, in their order."""
        return {name: self.fields[name] for name in self.inputs or self._usual_inputs()}

    @property
    def input(self) -> InputSchema:
        """What the samples are."""
        fields = self.input_fields.values()
        width = sum(field.width for field in fields)
        lowest, highest = _BOUNDS.get(self.scaling) or _bounds_of(fields)
        return InputSchema([self.window.readings, width] if self.window else [width], lowest, highest)

    def _usual_inputs(self) -> list[str]:
        apart = self.label.field if self.label and self.label.found != "later" else ""
        return [name for name in self.fields if name != apart]


_BOUNDS: Final = {"ranges": (-1.0, 1.0), "device": (-MOST_DEVIATIONS, MOST_DEVIATIONS)}


def _bounds_of(fields: Collection[ReadingField]) -> tuple[float, float]:
    """Of values as they are: of numbers their ranges; others are 0 or 1."""
    ranges = [field.range for field in fields if field.kind == "number"]
    ranges += [[0.0, 1.0]] if len(ranges) < len(fields) else []
    return min(low for low, _ in ranges), max(high for _, high in ranges)


USED_BY: Final[UsedBy] = {
    "within_seconds": ("found", ("by_time", "later")),
    "wait_seconds": ("found", ("by_id", "by_time")),
}
"""Settings of a label that mean something only where another one has one of these values."""


def check_readings(plan: ReadingPlan, name: str) -> None:
    """Check that the plan agrees with itself; `name` is the file that it is from.

    Raises:
        ConfigurationError: it does not.
    """
    for field_name, field in plan.fields.items():
        _check_field(field, field_name, f"{name}: readings.fields.{field_name}")
    listed = [*plan.inputs, *([plan.label.field] if plan.label else [])]
    if unknown := [each for each in listed if each not in plan.fields]:
        raise ConfigurationError(
            f"{name}: readings: there is no field {unknown[0]!r}; there are {_listed(plan.fields)}"
        )
    if len(set(plan.inputs)) < len(plan.inputs):
        raise ConfigurationError(f"{name}: readings.inputs names a field twice; name each once")
    if not plan.input_fields:
        raise ConfigurationError(f"{name}: readings: no field is left for the model; describe one besides the label's")
    _check_window(plan, name)
    _check_usual_ranges(plan, name)
    label = plan.label
    if label is not None:
        check_used(label, USED_BY, "readings.label", name)
    if label and (label.found == "later") != (label.after_seconds is not None):
        raise ConfigurationError(
            f"{name}: readings.label: after_seconds and found = 'later' belong together; write both, or neither"
        )


def _check_field(field: ReadingField, field_name: str, where: str) -> None:
    if field_name in RESERVED:
        raise ConfigurationError(f"{where}: {field_name!r} is not a field's name, but a reading's own; choose another")
    is_number = field.kind == "number"
    if (bool(field.values) != (field.kind == "category")) or (not is_number and (field.range or field.usual_range)):
        raise ConfigurationError(
            f"{where}: kind {field.kind!r} takes {_TAKES[field.kind]}; write that, and nothing else"
        )
    if len(set(field.values)) < len(field.values):
        raise ConfigurationError(f"{where}: values names one twice; name each once")
    for key, given in (("range", field.range), ("usual_range", field.usual_range)) if is_number else ():
        if (given or key == "range") and not _is_range(given):
            raise ConfigurationError(f"{where}: {key} is {given}; give lowest and highest, [-40.0, 85.0]")


def _is_range(given: list[float]) -> bool:
    return len(given) == 2 and math.isfinite(given[1] - given[0]) and given[0] < given[1]


def _check_usual_ranges(plan: ReadingPlan, name: str) -> None:
    """Raise `ConfigurationError` where one scales nothing."""
    for field in (each for each, described in plan.fields.items() if described.usual_range):
        where = f"{name}: readings.fields.{field}.usual_range is {plan.fields[field].usual_range}, and"
        if plan.scaling != "ranges":
            raise ConfigurationError(
                f"{where} readings.scaling {plan.scaling!r} does not use it; leave it out, or set scaling to 'ranges'"
            )
        if field not in plan.input_fields:
            raise ConfigurationError(
                f"{where} no input is made of the field, so nothing is scaled by it; leave it out, or name the field in"
                " readings.inputs"
            )


def _check_window(plan: ReadingPlan, name: str) -> None:
    window = plan.window
    if window and window.gap_seconds < window.step_seconds:
        raise ConfigurationError(
            f"{name}: readings.window.longest_gap_seconds {window.gap_seconds:g} is below step_seconds"
            f" {window.step_seconds:g}: every reading would be a gap; raise it, or leave it out"
        )
    if plan.input.size > MAX_WINDOW_VALUES:
        raise ConfigurationError(
            f"{name}: readings: a sample has {plan.input.size} values; the limit is {MAX_WINDOW_VALUES}: shorten the"
            " window, or take fewer fields"
        )


def check_labelled(plan: ReadingPlan, label: LabelSchema, name: str) -> None:
    """Check that the plan finds labels of the kind that the task learns from.

    Raises:
        ConfigurationError: it does not.
    """
    if not label.size:
        if plan.label:
            raise ConfigurationError(f"{name}: label.kind {label.kind!r} has no label; leave [readings.label] out")
        return
    if plan.label is None:
        raise ConfigurationError(f"{name}: readings.label is missing; say which field is the label: field = '...'")
    field = plan.fields[plan.label.field]
    classes = {"category": len(field.values), "boolean": 2, "number": label.classes}[field.kind]
    fits = label.classes == classes if label.is_index else label.kind == "regression" and field.kind == "number"
    if not fits or label.size != 1:
        raise ConfigurationError(
            f"{name}: readings.label.field {plan.label.field!r} is one {field.kind}"
            f"{f' of {classes}' if field.kind != 'number' else ''}, which is no label of kind {label.kind!r} with"
            f" {label.classes or label.values} {'classes' if label.classes else 'values'}; correct [label], or take"
            " another field"
        )


_TAKES: Final = {"number": "range, and usual_range where wanted", "category": "values", "boolean": "no range or values"}


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
