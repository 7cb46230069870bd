"""Strict CBOR: one value has exactly one encoding, and bytes from outside are read under limits."""

from collections.abc import Mapping
from typing import Any

import cbor2

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_CBOR_DEPTH


def _refuse_tag(*_: object) -> Any:
    raise ValueError("tags are not part of the protocol")


# cbor2 would otherwise build regular expressions, decimals, dates and shared references out of hostile bytes.
_BUILT_IN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_NO_TAGS: Mapping[int, Any] = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)


def encode(value: object) -> bytes:
    """Encode in the deterministic form of RFC 8949, section 4.2.1: shortest lengths, sorted keys."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, what: str) -> object:
    """Decode one CBOR item that must fill `data` and be in the form that `encode` writes.

    Raises:
        ProtocolError: `MALFORMED`: not CBOR, tagged, too deep, trailing bytes, or another encoding of the value.
    """
    try:
        value = cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=MAX_CBOR_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        canonical = encode(value)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(Reason.MALFORMED, f"{what}: not valid CBOR ({error})") from error
    if canonical != data:
        raise ProtocolError(Reason.MALFORMED, f"{what}: trailing bytes or a non-canonical CBOR encoding")
    return value
