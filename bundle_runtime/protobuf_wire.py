"""Protobuf's wire format, read strictly: every message has one encoding, and none is taken for another. Pure."""

from collections.abc import Iterator
from enum import IntEnum

MAX_VARINT_BYTES = 10


class Wire(IntEnum):
    """How a field's value is written. Groups, which protobuf gave up, are none of these."""

    VARINT = 0
    FIXED64 = 1
    LENGTH = 2
    FIXED32 = 5


_FIXED_BYTES = {Wire.FIXED64: 8, Wire.FIXED32: 4}
_WIRES = {wire.value: wire for wire in Wire}


class WireError(Exception):
    """Bytes that are no message, or that another reader might read in another way; says where."""


def read_fields(message: memoryview) -> Iterator[tuple[int, Wire, int, memoryview]]:
    """Each field of a message: its number, wire type, and value, as a number where it is a varint, else as bytes.

    Raises:
        WireError: cut short, a group, field number 0, or a number with more bytes than it needs.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, _WIRES.get(tag & 7)
        if wire is None or not number:
            raise WireError(f"byte {at}: field {number} has wire type {tag & 7}")
        if wire is Wire.VARINT:
            value, at = _read_varint(message, at)
            yield number, wire, value, message[:0]
            continue
        size, at = _read_varint(message, at) if wire is Wire.LENGTH else (_FIXED_BYTES[wire], at)
        if size > len(message) - at:
            raise WireError(f"byte {at}: field {number} has {size} bytes, {len(message) - at} are left")
        yield number, wire, 0, message[at : at + size]
        at += size


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned number at `at`, below 2^64, and where the next one begins."""
    value = 0
    for place, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if (place and not byte) or value >> 64:
                raise WireError(f"byte {at + place}: a number is longer than it has to be")
            return value, at + place + 1
    raise WireError(f"byte {at}: a number without an end")
