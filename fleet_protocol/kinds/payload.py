"""A payload's bytes: a CBOR array of its fields, in their order, without last ones that have their defaults."""

from typing import Annotated, TypeVar

import msgspec

from fleet_protocol import cbor
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_SEQUENCE

Payload = TypeVar("Payload", bound=msgspec.Struct)

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
"""What the device's database can hold."""


def encode_payload(payload: msgspec.Struct) -> bytes:
    """The bytes of a payload."""
    fields = msgspec.to_builtins(payload, builtin_types=(bytes,))
    end = len(fields)
    for default in reversed(payload.__struct_defaults__):
        if fields[end - 1] != default:
            break
        end -= 1
    return cbor.encode(fields[:end])


def decode_payload(data: bytes, kind: type[Payload]) -> Payload:
    """Read a payload of a known type.

    Raises:
        ProtocolError: `MALFORMED`, naming the field.
    """
    optional = kind.__struct_defaults__
    # Whether it is canonical is asked once: below, for those that may be written shorter.
    payload = _converted((cbor.parse if optional else cbor.decode)(data, kind.__name__), kind)
    if optional and encode_payload(payload) != data:
        defaults = " or ".join(dict.fromkeys(map(_written, optional)))
        raise ProtocolError(
            Reason.MALFORMED,
            f"{kind.__name__}: a last field of {defaults} is not written, nor anything but canonical CBOR",
        )
    return payload


def read_own(data: bytes, kind: type[Payload]) -> Payload:
    """Read what `encode_payload` has written in this process: nobody asks whether it is canonical."""
    return _converted(cbor.parse(data, kind.__name__), kind)


def _converted(fields: object, kind: type[Payload]) -> Payload:
    try:
        return msgspec.convert(fields, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise ProtocolError(Reason.MALFORMED, f"{kind.__name__}: {error}") from error


def _written(default: object) -> str:
    return "[]" if default == () else "null" if default is None else str(default)
