"""Stage 4, zstd where it pays: one byte that says what follows, and the body, plain or as one zstd frame."""

from dataclasses import dataclass

import zstandard

from fleet_protocol.codec.quantisation import Quantisation, is_one_bit
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import KIB

FORMAT = 3
_FORMAT_SHIFT = 5
_ZSTD = 0x10
_BITS = 0x08
_QUANTISATION = 0x07
_MAGIC = zstandard.MAGIC_NUMBER.to_bytes(4, "little")

_THOROUGH_LEVEL, _QUICK_LEVEL = 19, 3
_THOROUGH_UP_TO = 64 * KIB
"""Bytes up to which the slowest level takes a few milliseconds at most."""


@dataclass(frozen=True, slots=True)
class FirstByte:
    """What a packed update says of itself before anything else."""

    quantisation: Quantisation
    positions_in_bits: bool
    compressed: bool


def contain(body: bytes, quantisation: Quantisation, *, positions_in_bits: bool, zstd: bool = True) -> bytes:
    """The body behind its first byte, compressed with `zstd` if that is shorter; a body of nothing but dense bits never
    is.
    """
    first = FORMAT << _FORMAT_SHIFT | (_BITS if positions_in_bits else 0) | quantisation
    if zstd and not (positions_in_bits and is_one_bit(quantisation)):
        level = _THOROUGH_LEVEL if len(body) <= _THOROUGH_UP_TO else _QUICK_LEVEL
        frame = zstandard.ZstdCompressor(level=level, write_checksum=False).compress(body).removeprefix(_MAGIC)
        if len(frame) < len(body):
            return bytes([first | _ZSTD]) + frame
    return bytes([first]) + body


def read_first_byte(packed: bytes) -> FirstByte:
    """What the first byte says.

    Raises:
        ProtocolError: `MALFORMED`.
    """
    if not packed or packed[0] >> _FORMAT_SHIFT != FORMAT or packed[0] & _QUANTISATION not in tuple(Quantisation):
        raise ProtocolError(Reason.MALFORMED, f"update starts with {packed[:1].hex()!r}, not with a known format")
    first = packed[0]
    return FirstByte(Quantisation(first & _QUANTISATION), bool(first & _BITS), bool(first & _ZSTD))


def open_container(packed: bytes, limit: int) -> tuple[FirstByte, bytes]:
    """The first byte and the body, decompressed, of at most `limit` bytes.

    Raises:
        ProtocolError: `MALFORMED`, `TOO_LARGE` or `INFLATES`.
    """
    first = read_first_byte(packed)
    if len(packed) - 1 > limit:  # compressed or not: compressed bodies are shorter
        raise ProtocolError(Reason.TOO_LARGE, f"update body of {len(packed) - 1} bytes exceeds {limit}")
    return first, decompress(packed[1:], limit, _MAGIC) if first.compressed else packed[1:]


def decompress(stored: bytes, limit: int, left_out: bytes = b"") -> bytes:
    """Decompress one zstd frame that declares at most `limit` bytes, and more than it takes itself.

    `left_out` is its beginning, where that is not stored. Whoever writes a frame stores the content itself where that
    is shorter; so a frame can't be padded (with empty blocks) beyond its content.

    python-zstandard ignores `max_output_size` for frames that declare a size and allocates what they declare, so
    the declaration is read first. A frame that holds more than it declares fails inside libzstd.

    Raises:
        ProtocolError: `INFLATES` or `MALFORMED`.
    """
    frame = left_out + stored
    if not frame.startswith(_MAGIC):  # libzstd passes over skippable frames
        raise ProtocolError(Reason.MALFORMED, f"zstd: a frame starts with {_MAGIC.hex()}, not {frame[:4].hex()}")
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
        if declared == zstandard.CONTENTSIZE_UNKNOWN or declared > limit:
            raise ProtocolError(Reason.INFLATES, f"zstd frame declares {declared} bytes; at most {limit} are allowed")
        if len(stored) >= declared:
            raise ProtocolError(
                Reason.MALFORMED, f"a zstd frame of {len(stored)} bytes for {declared}: not compressed, it is shorter"
            )
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ProtocolError(Reason.MALFORMED, f"zstd: {error}") from error
