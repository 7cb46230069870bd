"""Reading TOML and JSON that a person wrote: typed, no unknown keys, errors that say what to change."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from fleet_protocol.errors import ConfigurationError

Document = TypeVar("Document")

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,48}\Z")]
"""A fleet, shard, device or task: what may stand in a topic (`fleet_protocol.topics.check_name`)."""


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files for mutual TLS; `certificate` and `key` are left out where the broker asks for a password instead."""

    authority: Path
    certificate: Path | None = None
    key: Path | None = None


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the broker is and how to speak to it. Nothing relies on MQTT 5: both protocols serve."""

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive_seconds: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 60
    username: str | None = None
    password_file: Path | None = None
    tls: TlsSettings | None = None

    def located(self, folder: Path) -> "BrokerSettings":
        """The same settings with relative paths meant from `folder`."""
        tls = self.tls and TlsSettings(
            folder / self.tls.authority,
            self.tls.certificate and folder / self.tls.certificate,
            self.tls.key and folder / self.tls.key,
        )
        password_file = self.password_file and folder / self.password_file
        return msgspec.structs.replace(self, tls=tls, password_file=password_file)


_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")


def parse_document(
    text: str | bytes, shape: type[Document], name: str, form: Literal["toml", "json"] = "toml"
) -> Document:
    """Parse `text` into `shape`, a msgspec Struct that forbids unknown fields.

    Raises:
        ConfigurationError: naming the file, the key, and what was expected there.
    """
    decode = msgspec.toml.decode if form == "toml" else msgspec.json.decode
    try:
        return decode(text, type=shape, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {_explain(str(error), shape)}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid {form.upper()}: {error}") from error


def _decode_path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Path(value)


def _explain(message: str, shape: object) -> str:
    unknown = _UNKNOWN_FIELD.search(message)
    if not unknown:
        return message.replace(" - at `$.", " - at `")
    key, table = unknown.group(1), unknown.group(2) or ""
    place = f" in [{table}]" if table else ""
    close = difflib.get_close_matches(key, _all_fields(shape), n=1)
    return f"unknown key {key!r}{place}" + (f"; did you mean {close[0]!r}?" if close else "")


def _all_fields(shape: object) -> set[str]:
    names: set[str] = set()
    pending, seen = [msgspec.inspect.type_info(shape)], set()
    while pending:
        found = pending.pop()
        if isinstance(found, msgspec.inspect.StructType) and found.cls not in seen:
            seen.add(found.cls)
            names.update(field.encode_name for field in found.fields)
            pending.extend(field.type for field in found.fields)
        pending.extend(getattr(found, "types", ()))
        pending.extend(getattr(found, name) for name in ("item_type", "value_type") if hasattr(found, name))
    return names
