"""Parsing TOML and JSON that a person wrote: typed, no unknown keys, errors that say what to change."""

import difflib
import re
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import msgspec

from fleet_protocol.errors import ConfigurationError

Document = TypeVar("Document")

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,48}\Z")]
"""A fleet, shard, device or task: what may stand in a topic (`fleet_protocol.topics.check_name`)."""


_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")


def parse_document(
    text: str | bytes,
    shape: type[Document],
    name: str,
    form: Literal["toml", "json"] = "toml",
    *,
    decode_field: Callable[[type, object], object] | None = None,
) -> Document:
    """Parse `text` into `shape`, a msgspec Struct that forbids unknown fields.

    `decode_field` makes a value of a type that msgspec doesn't know; it raises TypeError where it can't.

    Raises:
        ConfigurationError: naming the file, the key, and what was expected there.
    """
    decode = msgspec.toml.decode if form == "toml" else msgspec.json.decode
    try:
        return decode(text, type=shape, dec_hook=decode_field)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {_explain(str(error), shape)}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid {form.upper()}: {error}") from error


def _explain(message: str, shape: object) -> str:
    unknown = _UNKNOWN_FIELD.search(message)
    if not unknown:
        return message.replace(" - at `$.", " - at `")
    key = unknown.group(1)
    table = unknown.group(2) or ""
    place = f" in [{table}]" if table else ""
    close = difflib.get_close_matches(key, _all_fields(shape), n=1)
    return f"unknown key {key!r}{place}" + (f"; did you mean {close[0]!r}?" if close else "")


def _all_fields(shape: object) -> set[str]:
    names: set[str] = set()
    pending = [msgspec.inspect.type_info(shape)]
    seen = set()
    while pending:
        found = pending.pop()
        if isinstance(found, msgspec.inspect.StructType) and found.cls not in seen:
            seen.add(found.cls)
            names.update(field.encode_name for field in found.fields)
            pending.extend(field.type for field in found.fields)
        pending.extend(getattr(found, "types", ()))
        pending.extend(getattr(found, name) for name in ("item_type", "value_type") if hasattr(found, name))
    return names
