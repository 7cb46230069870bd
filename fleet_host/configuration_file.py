"""Reads a typed configuration file. Its relative paths start at the folder that it is in."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from fleet_protocol.configuration import convert_document, parse_document, parse_table
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MIB

MAX_CONFIGURATION_BYTES = MIB
"""Of a configuration file: no person writes so much."""
MAX_PATH_BYTES = 4095
"""Linux has room for 4096, of which the last is zero (PATH_MAX)."""

Configuration = TypeVar("Configuration", bound=msgspec.Struct)
Value = TypeVar("Value")
Table = dict[str, object]


def read_configuration(
    path: Path, shape: type[Configuration], complete: Callable[[Table, Path], Table] = lambda document, _: document
) -> Configuration:
    """Read a TOML file into `shape`; relative paths in it start at the file's folder.

    `complete` adds what other files say: it takes the document and its path, and returns the whole document.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIGURATION_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"configuration {path}: {why_unreadable(error, 'write one or pass --config FILE')}"
        ) from error
    if len(text) > MAX_CONFIGURATION_BYTES:
        raise ConfigurationError(
            f"configuration {path}: more than {MAX_CONFIGURATION_BYTES // MIB} MiB; name a configuration file"
        )
    document = complete(parse_table(text, str(path)), path.absolute())
    return _located(convert_document(document, shape, str(path), decode_field=decode_path), path.resolve().parent)


def parse_with_paths(text: bytes, shape: type[Configuration], name: str) -> Configuration:
    """`parse_document` for a TOML document in which some fields are paths.

    Raises:
        ConfigurationError: naming the file, the key, and what was expected there.
    """
    return parse_document(text, shape, name, decode_field=decode_path)


def decode_path(kind: type, value: object) -> Path:
    """For msgspec: a path, which it does not know.

    Raises:
        TypeError: another type is wanted, or the value is no text, or can't be a path.
    """
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    if not value or not value.isprintable() or len(os.fsencode(value)) > MAX_PATH_BYTES:
        raise TypeError(f"Expected a path of 1 to {MAX_PATH_BYTES} bytes in one line")
    return Path(value)


def _located(value: Value, folder: Path) -> Value:
    """The same value with `folder` in front of every relative path in it."""
    located: object = value
    if isinstance(value, Path):
        located = folder / value
    elif isinstance(value, list):
        located = [_located(item, folder) for item in value]
    elif isinstance(value, msgspec.Struct):
        fields = {name: _located(getattr(value, name), folder) for name in value.__struct_fields__}
        located = msgspec.structs.replace(value, **fields)
    return located  # type: ignore[return-value]  # of the type of `value` in every branch
