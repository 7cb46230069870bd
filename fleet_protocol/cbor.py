"""Strict CBOR: one value has exactly one encoding, and bytes from outside are read under limits."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import cbor2

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import KIB, MAX_CBOR_DEPTH, MAX_CBOR_ITEMS

_BYTE_STRING: Final = 2
_STRINGS: Final = (_BYTE_STRING, 3)
"""Major types whose content follows their head (RFC 8949, section 3.1)."""
_SHORTEST_HEAD: Final = 24
_LONGEST_HEAD: Final = 27
"""Lengths that stand in 1, 2, 4 or 8 bytes of their own, by the five bits that say so."""

LENGTHS_REMEMBERED = 1_000
"""Of byte strings, by their heads: updates of a task have nearly the same."""


def _refuse_tag(*_: object) -> Any:
    raise ValueError("tags are not part of the protocol")


# cbor2 would otherwise build regular expressions, decimals, dates and shared references out of hostile bytes.
_BUILT_IN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_NO_TAGS: Mapping[int, Any] = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)


def encode(value: object) -> bytes:
    """Encode in the deterministic form of RFC 8949, section 4.2.1: shortest lengths and floats, sorted keys."""
    return cbor2.dumps(value, canonical=True)


def encode_plain(value: object) -> bytes:
    """The same, for a value without floats, and without maps of more than one entry: they have one form anyway."""
    return cbor2.dumps(value)


def decode(data: bytes, what: str) -> object:
    """Decode one CBOR item that must fill `data` and be in the form that `encode` writes.

    Raises:
        ProtocolError: `MALFORMED`: not CBOR, tagged, too deep, trailing bytes, or another encoding of the value.
    """
    value = parse(data, what)
    try:
        canonical = encode(value)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(Reason.MALFORMED, f"{what}: not valid CBOR ({error})") from error
    if canonical != data:
        raise ProtocolError(Reason.MALFORMED, f"{what}: trailing bytes or a non-canonical CBOR encoding")
    return value


def parse(data: bytes, what: str) -> object:
    """Decode one CBOR item in any encoding; the caller checks that encoding it again gives `data`.

    Allocates at most twice `memory_bound`.

    Raises:
        ProtocolError: `MALFORMED`: not CBOR, tagged, too deep or of more than `MAX_CBOR_ITEMS` values.
    """
    if len(data) > MAX_CBOR_ITEMS:
        _check_items(data, what)
    try:
        return cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=MAX_CBOR_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(Reason.MALFORMED, f"{what}: not valid CBOR ({error})") from error


def memory_bound(size: int) -> int:
    """Upper bound for the memory that an item of `size` bytes takes once decoded, in bytes."""
    return 64 * KIB + size + 80 * min(size, MAX_CBOR_ITEMS)


def _check_items(data: bytes, what: str) -> None:
    """Refuse too many values before any of them is built. What is malformed here is left to cbor2 to refuse."""
    at = items = 0
    while at < len(data):
        items += 1
        if items > MAX_CBOR_ITEMS:
            raise ProtocolError(Reason.MALFORMED, f"{what}: more than {MAX_CBOR_ITEMS} CBOR values")
        major_type = data[at] >> 5
        length = data[at] & 0x1F
        at += 1
        if length > _LONGEST_HEAD:
            return
        if length >= _SHORTEST_HEAD:
            width = 1 << (length - _SHORTEST_HEAD)
            length = int.from_bytes(data[at : at + width], "big")
            at += width
        if major_type in _STRINGS:
            at += length


def byte_string(content: bytes) -> bytes:
    """A byte string in the shortest form: where only these are joined, that is several times faster than `encode`."""
    return _byte_string_head(len(content)) + content


@lru_cache(LENGTHS_REMEMBERED)
def _byte_string_head(length: int) -> bytes:
    return cbor2.dumps(bytes(length))[: -length or None]


def read_byte_string(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The byte string that begins at `at`, and where it ends; None if none in the shortest form begins there."""
    first = data[at] if at < len(data) else 0
    length = first & 0x1F
    begin = at + 1
    if length >= 24:
        width = 1 << (length - 24)
        begin += width
        length = int.from_bytes(data[at + 1 : begin], "big")
        if width > 8 or length < (24 if width == 1 else 1 << (4 * width)):
            return None
    end = begin + length
    return (data[begin:end], end) if first >> 5 == _BYTE_STRING and end <= len(data) else None
