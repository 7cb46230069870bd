"""The values of a reading's fields as numbers, each checked against its field. Pure."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from edge_agent.preparation.refusal import ReadingRefusedError, shown
from fleet_protocol.reading_plan import ReadingField

Reading = Mapping[str, object]
"""Field names to values, as JSON has them: a value may also be `{"value": 21.5, "unit": "°C"}`."""

TRUTHS: Final = {"on": 1.0, "true": 1.0, "yes": 1.0, "off": 0.0, "false": 0.0, "no": 0.0}
"""Words of home automation for a boolean, in small letters."""


def number_of(name: str, field: ReadingField, reading: Reading) -> float:
    """The value of one field: a number in its unit, the place of a category's value, 1 or 0 of a boolean.

    Raises:
        ReadingRefusedError: it is missing, or not what the field takes.
    """
    given = reading.get(name)
    if given is None:
        there = ", ".join(sorted(map(str, reading))[:8]) or "nothing"
        raise ReadingRefusedError("field_missing", f"{name} is missing; the reading has {there}: publish it as well")
    if isinstance(given, dict):
        given = _without_unit(name, field, given)
    return _READERS[field.kind](name, field, given)


def inputs_of(name: str, field: ReadingField, reading: Reading) -> list[float]:
    """The inputs that one field becomes, unscaled; raises as `number_of` does."""
    number = number_of(name, field, reading)
    if field.kind != "category":
        return [number]
    return [float(place == number) for place in range(field.width)]


def _without_unit(name: str, field: ReadingField, given: Mapping[object, object]) -> object:
    unit = given.get("unit", field.unit)
    if unit != field.unit:
        wanted = field.unit or "no unit"
        raise ReadingRefusedError("wrong_unit", f"{name} is in {shown(unit)}; the task takes {wanted}: convert it")
    return given.get("value")


def _number(name: str, field: ReadingField, given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        remedy = "publish a number, with a decimal point"
        raise ReadingRefusedError("not_a_number", f"{name} is {shown(given)}; {remedy}")
    lowest, highest = field.range
    if not lowest <= given <= highest:  # so is NaN
        unit = f" {field.unit}" if field.unit else ""
        if isinstance(given, float) and not math.isfinite(given):
            raise ReadingRefusedError("not_finite", f"{name} is {given}; leave the reading out, or publish a number")
        raise ReadingRefusedError(
            "out_of_range",
            f"{name} is {shown(given)}; from {lowest:g} to {highest:g}{unit} is taken: see to sensor and unit",
        )
    return float(given)


def _category(name: str, field: ReadingField, given: object) -> float:
    text = _text(given) if isinstance(given, int | float) and not isinstance(given, bool) else given
    if text in field.values:
        return float(field.values.index(text))
    known = ", ".join(field.values[:8])
    raise ReadingRefusedError("unknown_value", f"{name} is {shown(given)}; the task takes {known}: correct it")


def _text(given: float) -> str:
    """A number as a category's value has it: 3.0 is 3. An integer of JSON may be larger than any float."""
    return str(int(given)) if isinstance(given, int) or given.is_integer() else repr(given)


def _boolean(name: str, _: ReadingField, given: object) -> float:
    found = TRUTHS.get(given.lower()) if isinstance(given, str) else given
    if isinstance(found, int | float) and found in (0, 1):
        return float(found)
    raise ReadingRefusedError("unknown_value", f"{name} is {shown(given)}; publish true or false, 1 or 0, on or off")


_READERS: Final[Mapping[str, Callable[[str, ReadingField, object], float]]] = {
    "number": _number,
    "category": _category,
    "boolean": _boolean,
}
