"""What passes between a device and its helper in a step, float32 [rows, *shape], as bytes; and hostile bytes checked.

    choose entries -> quantise -> zstd where it pays

Each is one module: `row_entries`, `row_levels`, and `container` for the bounds of a frame. A whole array has a scale
for each channel, its axis 1: on activations and gradients of MNIST and of a GRU that halves the error of one scale for
all, and post-ReLU channels take only levels above 0. Of chosen entries each row has a scale. docs/wire-format.md has
the layout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from fleet_protocol.codec.container import decompress
from fleet_protocol.codec.row_entries import choose, pack_places, place_bytes, unpack_places
from fleet_protocol.codec.row_levels import Matrix, code_rows, coded_bytes, decode_rows
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import KIB, MAX_STEP_VALUES
from fleet_protocol.split_plan import GradientSelection, WireFormat

FORMAT: Final = 1
_FORMAT_SHIFT: Final = 5
_ZSTD: Final = 0x10
_CHOSEN: Final = 0x08
_NON_NEGATIVE: Final = 0x04
_WIRE: Final = 0x03
_WIRES: Final[tuple[WireFormat, ...]] = ("float32", "float16", "int8", "int4")
_COUNT_BYTES: Final = 4
_MAGIC: Final = zstandard.MAGIC_NUMBER.to_bytes(4, "little")
_LEVEL: Final = 1
"""Of zstd: higher ones take a device several times as long, for a hundredth of the bytes."""

Activations = NDArray[np.float32]
"""float32 [rows, *shape]: of each row of a mini-batch what a block gives, or a gradient by that."""


@dataclass(frozen=True, slots=True)
class _FirstByte:
    wire: WireFormat
    non_negative: bool
    chosen: bool
    compressed: bool = False

    def encode(self) -> int:
        flags = _CHOSEN * self.chosen | _NON_NEGATIVE * self.non_negative | _ZSTD * self.compressed
        return FORMAT << _FORMAT_SHIFT | flags | _WIRES.index(self.wire)

    @classmethod
    def decode(cls, first: int) -> "_FirstByte":
        flags = (bool(first & flag) for flag in (_NON_NEGATIVE, _CHOSEN, _ZSTD))
        return cls(_WIRES[first & _WIRE], *flags)


def pack_activations(values: Activations, wire: WireFormat) -> bytes:
    """A finite array with at least one value in every row, whole."""
    matrix = _by_channel(values) if wire in ("int8", "int4") else values.reshape(len(values), -1)
    non_negative = bool(matrix.min() >= 0)
    return _contain(code_rows(matrix, wire, non_negative), _FirstByte(wire, non_negative, chosen=False))


def pack_gradient(
    gradient: Activations,
    wire: WireFormat,
    selection: GradientSelection,
    keep: float,
    generator: np.random.Generator,
) -> bytes:
    """The same of a gradient, of which only some entries of each row travel where `selection` and `keep` say so."""
    matrix = gradient.reshape(len(gradient), -1)
    places = choose(matrix, selection, keep, generator)
    if places.shape[1] == matrix.shape[1]:
        return pack_activations(gradient, wire)
    kept = np.take_along_axis(matrix, places, axis=1)
    non_negative = bool(kept.min() >= 0)
    body = places.shape[1].to_bytes(_COUNT_BYTES, "little") + pack_places(places, matrix.shape[1])
    return _contain(body + code_rows(kept, wire, non_negative), _FirstByte(wire, non_negative, chosen=True))


def unpack_rows(packed: bytes, wire: WireFormat, rows: int, shape: Sequence[int]) -> Activations:
    """Read and check what either of the above wrote: float32 [rows, *shape], 0 where no entry has travelled.

    Allocates at most `memory_bound`.

    Raises:
        ProtocolError: `MALFORMED`, `TOO_LARGE`, `INFLATES`, `WRONG_SHAPE`, `INDEX_OUT_OF_RANGE` or `NOT_FINITE`.
    """
    columns = math.prod(shape)
    if rows * columns > MAX_STEP_VALUES:
        raise ProtocolError(
            Reason.TOO_LARGE,
            f"{rows} rows of {list(shape)} exceed MAX_STEP_VALUES ({MAX_STEP_VALUES}); export with smaller batches",
        )
    if not packed or packed[0] >> _FORMAT_SHIFT != FORMAT:
        raise ProtocolError(Reason.MALFORMED, f"activations start with {packed[:1].hex()!r}, not with a known format")
    first = _FirstByte.decode(packed[0])
    if first.wire != wire:
        raise ProtocolError(Reason.MALFORMED, f"activations are {first.wire}, and were announced as {wire}")
    body = memoryview(_opened(packed, first, rows, shape))
    if first.chosen:
        return _unpack_chosen(body, first, rows, columns).reshape(rows, *shape)
    return _unpack_whole(body, first, rows, shape)


def memory_bound(rows: int, shape: Sequence[int]) -> int:
    """Bytes that `unpack_rows` allocates at most: places as bits and int64, and the float32 that it returns."""
    return 64 * KIB + 32 * rows * math.prod(shape)


def _unpack_whole(body: memoryview, first: _FirstByte, rows: int, shape: Sequence[int]) -> Activations:
    _check_length(body, _whole_bytes(first.wire, rows, shape))
    if first.wire in ("float32", "float16"):
        return decode_rows(body, first.wire, rows, math.prod(shape), first.non_negative).reshape(rows, *shape)
    channels = shape[0]
    inner = tuple(shape[1:])
    by_channel = decode_rows(body, first.wire, channels, rows * math.prod(inner), first.non_negative)
    return np.ascontiguousarray(np.moveaxis(by_channel.reshape(channels, rows, *inner), 0, 1))


def _unpack_chosen(body: memoryview, first: _FirstByte, rows: int, columns: int) -> Matrix:
    count = int.from_bytes(body[:_COUNT_BYTES], "little")
    if not 1 <= count < columns:
        raise ProtocolError(Reason.MALFORMED, f"{count} entries are chosen in rows of {columns}")
    coded_from = _COUNT_BYTES + place_bytes(rows, columns, count)
    _check_length(body, coded_from + coded_bytes(first.wire, rows, count))
    places = unpack_places(body[_COUNT_BYTES:coded_from], rows, columns, count)
    whole = np.zeros((rows, columns), np.float32)
    kept = decode_rows(body[coded_from:], first.wire, rows, count, first.non_negative)
    np.put_along_axis(whole, places, kept, axis=1)
    return whole


def _by_channel(values: Activations) -> Matrix:
    """[channels, all values of one]."""
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)


def _whole_bytes(wire: WireFormat, rows: int, shape: Sequence[int]) -> int:
    channels = shape[0]
    return coded_bytes(wire, channels, rows * math.prod(shape) // channels)


def _contain(body: bytes, first: _FirstByte) -> bytes:
    """The body behind its first byte, compressed where that is shorter."""
    frame = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(body).removeprefix(_MAGIC)
    if len(frame) < len(body):
        return bytes([first.encode() | _ZSTD]) + frame
    return bytes([first.encode()]) + body


def _opened(packed: bytes, first: _FirstByte, rows: int, shape: Sequence[int]) -> bytes:
    """The body, decompressed; no longer than one of these rows can be."""
    columns = math.prod(shape)
    limit = _whole_bytes(first.wire, rows, shape)
    if first.chosen:
        limit = _COUNT_BYTES + place_bytes(rows, columns, columns) + coded_bytes(first.wire, rows, columns)
    if len(packed) - 1 > limit:
        raise ProtocolError(Reason.TOO_LARGE, f"activations of {len(packed) - 1} bytes exceed {limit}")
    return decompress(packed[1:], limit, _MAGIC) if first.compressed else packed[1:]


def _check_length(body: memoryview, expected: int) -> None:
    if len(body) != expected:
        raise ProtocolError(Reason.WRONG_SHAPE, f"activations have {len(body)} bytes where {expected} are expected")
