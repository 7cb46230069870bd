"""A sample as a line of JSON, and what is wrong with one that is none. Pure.

The sample socket and files of samples read lines here, so they say the same of them.
"""

import json
import math
import re
from typing import TypeVar

import msgspec

from fleet_protocol.sample_row import Given

Line = TypeVar("Line", bound=msgspec.Struct)

_FORM = '{"task": "...", "inputs": [...], "label": ...}'
_NO_JSON_NUMBER = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)\b")
_NULL_INPUT = re.compile(rb"[,\[]\s*null\b")
_OUT_OF_RANGE = "out of range"
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_TYPE_WORDS = {
    "array": "a list",
    "object": "an object",
    "str": "a text",
    "null": "null",
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
}


class Sample(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One sample of one task, with its label, as a source hands it over; `budget` names one of the device's own."""

    task: str
    inputs: list[float] | dict[str, float | list[float]]
    label: Given = None
    budget: str = ""


def read_sample(line: bytes) -> Sample:
    """A sample from its JSON; raises as `read_line` does."""
    return read_line(line, Sample)


def read_line(line: bytes, shape: type[Line]) -> Line:
    """A sample of a given shape from its JSON; an input that is null is missing, as NaN is.

    Raises:
        ValueError: it is none; says where and why.
    """
    try:
        try:
            return msgspec.json.decode(line, type=shape)
        except msgspec.DecodeError as error:
            if not (_NO_JSON_NUMBER.search(line) or _NULL_INPUT.search(line) or _OUT_OF_RANGE in str(error)):
                raise
            # Many programs write NaN and Infinity, which are no JSON; read them, so that the check can name the place.
            return msgspec.convert(_without_null(json.loads(line, parse_int=float)), shape)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}; a sample is one line {_FORM}") from error


def _without_null(read: object) -> object:
    if not isinstance(read, dict):
        return read
    inputs = read.get("inputs")
    if isinstance(inputs, dict):
        return read | {"inputs": {name: _filled(values) for name, values in inputs.items()}}
    return read | {"inputs": _filled(inputs)} if isinstance(inputs, list) else read


def _filled(values: object) -> object:
    return [math.nan if value is None else value for value in values] if isinstance(values, list) else values


def _in_words(error: str) -> str:
    """What msgspec says of a sample of another shape."""
    if field := _FIELD.search(error):
        what = "a sample needs" if field[1].startswith("missing") else "a sample has no"
        return f"{what} {field[2]!r}; it is one line {_FORM}"
    if wrong := _WRONG_TYPE.search(error):
        found, place = _TYPE_WORDS.get(wrong[2], wrong[2]), wrong[3] or "a sample"
        kinds = dict.fromkeys(_TYPE_WORDS.get(kind, kind) for kind in wrong[1].split(" | "))
        return f"{place} is {found}, and should be {' or '.join(kinds)}; a sample is one line {_FORM}"
    return f"{error}; a sample is one line {_FORM}"
