"""Fields of the sample store that a query may name, and where their values stand in a stored sample. Pure.

label, label[2], label.HEAD, label.HEAD[2]     a class's number, or one value of a label
input[3], input.NAME[3]                        one value of the inputs, as the device stores it
reading.NAME                                   a field of the task's readings: its value in the newest one, in its
                                               own unit unless every device scales its own (`scaling = "device"`)
received_at                                    when the sample came, in seconds since 1970
text.NAME                                      words that the owner of a device has given that name
"""

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.limits import MAX_FIELD_CHARACTERS
from fleet_protocol.reading_plan import ReadingPlan
from fleet_protocol.sample_schema import runs
from fleet_protocol.task_description import TaskDescription

RECEIVED_AT: Final = "received_at"
_FIELD: Final = re.compile(
    r"(?P<what>label|input|reading|text)(?:\.(?P<name>[A-Za-z_][A-Za-z0-9_]{0,47}))?(?:\[(?P<at>0|[1-9][0-9]{0,8})\])?"
)

FieldText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FIELD_CHARACTERS)]
"""What somebody writes for a field in a file."""
Store = Literal["class", "label", "inputs", "received_at", "text"]


@dataclass(frozen=True, slots=True)
class FieldPlace:
    """Where a field is kept: `index` counts the values of the row of labels or of inputs, `width` is 1 but for a
    category, whose number is the place of the 1 among so many. A stored value x stands for `offset` + `factor` x.
    `name` is that of a text.
    """

    store: Store
    index: int = 0
    width: int = 1
    offset: float = 0.0
    factor: float = 1.0
    name: str = ""


class UnknownFieldError(Exception):
    """The task has no such field; says which it has."""


def check_field_name(field: str) -> None:
    """Refuse what is no field of any task.

    Raises:
        ValueError: with what fields are called.
    """
    if field != RECEIVED_AT and not _FIELD.fullmatch(field):
        raise ValueError(
            f"{field[:80]!r} names no field; fields are label, input[3], reading.NAME, received_at and text.NAME"
        )


def is_covered(field: str, by: str) -> bool:
    """Whether `field` is what `by` names, or one of the values that it names: `input` covers `input[3]`."""
    return field == by or field.startswith((f"{by}[", f"{by}."))


def find_field(field: str, task: TaskDescription) -> FieldPlace:
    """Where a field of a task's samples is kept.

    Raises:
        UnknownFieldError: there is none; says which there are.
    """
    if field == RECEIVED_AT:
        return FieldPlace("received_at")
    match = _FIELD.fullmatch(field)
    if match is None:
        raise UnknownFieldError(f"{field[:80]!r} names no field of {task.task}")
    what, name, at = match["what"], match["name"] or "", match["at"]
    position = None if at is None else int(at)
    match what:
        case "text":
            return _text(field, name, position)
        case "reading":
            return _reading(field, name, position, task)
        case "input":
            return FieldPlace("inputs", _index(field, name, position, task, "input"))
    if task.label.is_index and not name and not position:
        return FieldPlace("class")
    return FieldPlace("label", _index(field, name, position, task, "label"))


def class_count(field: str, task: TaskDescription) -> int:
    """How many classes a label or a category has; 0 where the field is a number."""
    place = find_field(field, task)
    if place.width > 1:
        return place.width
    for name, head, _ in runs(task.each_label):
        if place.store in {"class", "label"} and field == (f"label.{name}" if name else "label"):
            return head.classes if head.kind == "class" and not head.shape else 0
    return 0


def _text(field: str, name: str, position: int | None) -> FieldPlace:
    if not name or position is not None:
        raise UnknownFieldError(f"{field!r}: a text is named text.NAME, after a name in agent.toml")
    return FieldPlace("text", name=name)


def _index(field: str, name: str, position: int | None, task: TaskDescription, what: Literal["input", "label"]) -> int:
    schemas = runs(task.each_input) if what == "input" else runs(task.each_label)
    found = {each: (int(run.start), schema.size) for each, schema, run in schemas}
    if name not in found:
        named = ", ".join(f"{what}.{each}" for each in found if each) or f"{what} alone, without names"
        raise UnknownFieldError(f"{field!r} is no field of {task.task}, which has {named}")
    start, size = found[name]
    if position is None and size == 1:
        position = 0
    if position is None or position >= size:
        raise UnknownFieldError(
            f"{field!r}: {what} has {size} values in {task.task}; name one, from [0] to [{size - 1}]"
        )
    return start + position


def _reading(field: str, name: str, position: int | None, task: TaskDescription) -> FieldPlace:
    plan = task.readings
    if plan is None:
        raise UnknownFieldError(f"{field!r}: {task.task} takes no named readings; ask for input[N] or label")
    fields = plan.input_fields
    if name not in fields or position is not None:
        raise UnknownFieldError(f"{field!r} is no reading of {task.task}, which has {', '.join(fields)}")
    before = takewhile(lambda other: other != name, fields)
    index = _newest_row(plan) + sum(fields[each].width for each in before)
    found = fields[name]
    if plan.scaling != "ranges" or found.kind != "number":
        return FieldPlace("inputs", index, found.width)
    lowest, highest = found.scale
    return FieldPlace("inputs", index, offset=(highest + lowest) / 2, factor=(highest - lowest) / 2)


def _newest_row(plan: ReadingPlan) -> int:
    """Where the newest of a window's readings begins; windows are oldest first."""
    width = sum(field.width for field in plan.input_fields.values())
    return (plan.window.readings - 1) * width if plan.window else 0
