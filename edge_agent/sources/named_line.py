"""A named reading as a line of the sample socket. Pure."""

import json
import re
from typing import Any

import msgspec

from fleet_protocol.document_errors import explain

_FORM = '{"task": "...", "reading": {...}}'
_NO_JSON_NUMBER = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)\b")


class NamedLine(msgspec.Struct, forbid_unknown_fields=True):
    """`reading` has values by the names of the task's fields, and `time` and `id` where these matter."""

    task: str
    reading: dict[str, Any]
    series: str = ""


def read_named(line: bytes) -> NamedLine:
    """A reading from its JSON; NaN and Infinity, which many programs write and are no JSON, are read for the check of
    the field to say where they stand.

    Raises:
        ValueError: it is none; says where and why.
    """
    decode = json.loads if _NO_JSON_NUMBER.search(line) else msgspec.json.decode
    try:
        document = decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(
            f'not valid JSON: {error}; a reading is one line {{"task": "...", "reading": {{...}}}}'
        ) from error
    try:
        return msgspec.convert(document, NamedLine)
    except msgspec.ValidationError as error:
        raise ValueError(explain(error, NamedLine, document)) from error
