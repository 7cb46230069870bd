"""What is wrong with a document that a person wrote: msgspec's words, with the value seen and what may stand there.

msgspec says where, as in `$.tasks[0].trigger.new_samples`; the valid values and keys are looked up in the struct.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

MAX_SHOWN_CHARACTERS = 80
"""Of a value in an error."""
MAX_COMPLAINT_CHARACTERS = 240
"""Of what is wrong, which may quote a value or a key."""
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON; the second where a text among them is not UTF-8."""

_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]*)`")
_PATTERN = re.compile(r"^Expected `str` matching regex .*$")

Step = str | int | None
"""A key, a position, or None for any item."""


def explain(error: msgspec.ValidationError, shape: object, document: object) -> str:
    """One sentence: what is wrong in `document`, which doesn't fit `shape`, where, and what may stand there."""
    message = str(error)
    place = _PLACE.search(message)
    path = place.group(1) if place else ""
    complaint = message[: place.start()] if place else message
    steps = list(_steps(path))
    if unknown := _UNKNOWN.match(complaint):
        return _unknown_key(_one_line(unknown.group(1), MAX_SHOWN_CHARACTERS), path, shape, steps)
    found = _type_at(inspect.type_info(shape), steps)
    complaint = complaint.replace("Object missing required field", "missing key").replace(" | null", "")
    if _PATTERN.match(complaint) and (words := _description(found)):
        complaint = f"Expected {words}"
    at = f" - at `{path}`" if path else ""
    return f"{_one_line(complaint, MAX_COMPLAINT_CHARACTERS)}{at}{_remedy(found, _value_at(document, steps))}"


def _one_line(text: str, most: int) -> str:
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:most])
    return shown if len(text) <= most else f"{shown}…"


def _remedy(found: inspect.Type | None, value: object) -> str:
    if choices := _choices(found):
        return f"; choose one of {', '.join(choices)}" + (_nearest(value, choices) if isinstance(value, str) else "")
    if isinstance(value, str | int | float):
        shown = repr(value) if not isinstance(value, bool) else str(value).lower()
        return f"; it is {shown[:MAX_SHOWN_CHARACTERS]}"
    return ""


def _unknown_key(key: str, path: str, shape: object, steps: list[Step]) -> str:
    table = _struct(_type_at(inspect.type_info(shape), steps))
    here = [field.encode_name for field in table.fields] if table else []
    said = f"unknown key {key!r}" + (f" in [{path}]" if path else "")
    if near := _nearest(key, here):
        return said + near
    elsewhere = [place for place, name in _keys(inspect.type_info(shape), "", ()) if name == key]
    if elsewhere:
        return f"{said}; it belongs {' or '.join(f'in [{each}]' if each else 'above all tables' for each in elsewhere)}"
    return f"{said}; the keys are {', '.join(here)}" if here else said


def _nearest(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _steps(path: str) -> Iterator[Step]:
    for key, position in _STEP.findall(path):
        yield key or (int(position) if position.isdecimal() else None)


def _type_at(found: inspect.Type, steps: list[Step]) -> inspect.Type | None:
    """The type at a place, with its metadata; None where the place isn't in it."""
    for step in steps:
        inner = _plain(found, table=isinstance(step, str))
        following = None
        if isinstance(inner, inspect.StructType):
            following = next((field.type for field in inner.fields if field.encode_name == step), None)
        else:
            following = getattr(inner, "item_type", None) or getattr(inner, "value_type", None)
        if following is None:
            return None
        found = following
    return found


def _plain(found: Any, *, table: bool = False) -> Any:
    """Without metadata; of alternatives the one that has keys (`table`) or items."""
    if isinstance(found, inspect.Metadata):
        return _plain(found.type, table=table)
    if isinstance(found, inspect.UnionType):
        return next((each for each in map(_plain, found.types) if isinstance(each, inspect.StructType) == table), found)
    return found


def _struct(found: inspect.Type | None) -> inspect.StructType | None:
    inner = _plain(found, table=True)
    return inner if isinstance(inner, inspect.StructType) else None


def _choices(found: Any) -> list[str]:
    if isinstance(found, inspect.UnionType):
        return [choice for each in found.types for choice in _choices(each)]
    inner = _plain(found)
    return [str(each) for each in inner.values] if isinstance(inner, inspect.LiteralType) else []


def _description(found: inspect.Type | None) -> str:
    """In words; of alternatives, of the first that has any."""
    if isinstance(found, inspect.UnionType):
        return next(filter(None, map(_description, found.types)), "")
    schema = found.extra_json_schema if isinstance(found, inspect.Metadata) else None
    return str((schema or {}).get("description", ""))


def _value_at(document: object, steps: list[Step]) -> object:
    """The value at a place; None where it can't be told."""
    for step in steps:
        match document, step:
            case dict(), str() if step in document:
                document = document[step]
            case list(), int() if step < len(document):
                document = document[step]
            case _:
                return None
    return document


def _keys(found: Any, place: str, seen: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    """Every key of every table, with its table."""
    inner = _plain(found, table=True)
    if isinstance(inner, inspect.StructType) and inner.cls not in seen:
        for field in inner.fields:
            yield place, field.encode_name
            yield from _keys(field.type, f"{place}.{field.encode_name}".lstrip("."), (*seen, inner.cls))
    elif hasattr(inner, "item_type"):
        yield from _keys(inner.item_type, place, seen)
