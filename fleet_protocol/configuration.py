"""Parsing TOML and JSON that a person wrote: typed, no unknown keys, errors that say what to change."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypeVar

import msgspec

from fleet_protocol.document_errors import explain
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SETTING, MAX_WAIT_SECONDS

Document = TypeVar("Document")

Name = Annotated[
    str,
    msgspec.Meta(pattern=r"^[a-z0-9_-]{1,48}\Z", description="1 to 48 characters of a-z, 0-9, '-' and '_'"),
]
"""A fleet, shard, device or task: what may stand in a topic (`fleet_protocol.topics.check_name`)."""


def one_line(most: int, least: int = 1, what: str = "") -> msgspec.Meta:
    """What a text has to be that may hold any characters but control characters; `what` it is, for an error."""
    return msgspec.Meta(
        pattern=rf"^[^\x00-\x1f\x7f]{{{least},{most}}}\Z",
        description=f"{what or 'a text'} of {least} to {most} characters in one line",
        title="text",
    )


MAX_TEXT_CHARACTERS = 255
"""Of a setting that is a name of something else's, as of a sensor: also the longest name of a file."""

Text = Annotated[str, one_line(MAX_TEXT_CHARACTERS)]
"""What nothing else bounds."""

PublicKey = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\s*[0-9A-Fa-f]{64}\s*\Z",
        description="64 hex digits (an Ed25519 key), as `broker-coordinator key` on the server prints them",
        title="64 hex digits",
    ),
]

AbsolutePath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^/[^\x00-\x1f\x7f]{0,1023}\Z",
        description="an absolute path: begin it with /, and write at most 1024 characters in one line",
        title="path",
    ),
]

PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=MAX_SETTING)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]

Seconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_WAIT_SECONDS)]
"""A time limit or an interval: what a timer takes."""


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
    if form == "toml":
        return convert_document(parse_table(text, name), shape, name, decode_field=decode_field)
    try:
        return msgspec.json.decode(text, type=shape, dec_hook=decode_field)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {explain(error, shape, _untyped(text))}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid JSON: {error}") from error


def parse_table(text: str | bytes, name: str) -> dict[str, object]:
    """A TOML document as it is, for `convert_document`.

    Raises:
        ConfigurationError: it is not TOML.
    """
    try:
        table: dict[str, object] = msgspec.toml.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid TOML: {error}") from error
    return table


def convert_document(
    document: Mapping[str, object],
    shape: type[Document],
    name: str,
    *,
    decode_field: Callable[[type, object], object] | None = None,
) -> Document:
    """Like `parse_document`, of a document that is parsed already.

    Raises:
        ConfigurationError: naming `name`, the key, and what was expected there.
    """
    try:
        return msgspec.convert(document, shape, dec_hook=decode_field, str_keys=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {explain(error, shape, document)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid TOML: {error}") from error


def _untyped(text: str | bytes) -> object:
    """The document as it is; None where it is cut off behind its first mistake."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
