"""Rows of numbers as levels of one scale each: how activations and gradients of split learning are quantised.

A scale is the upper half of a float32 (bfloat16), as in `quantisation`. Where no number is negative, as behind a ReLU,
all levels lie above 0: that halves the error.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.quantisation import INFINITE_SCALE, Codes, pack_nibbles, rounded_up, unpack_nibbles
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.split_plan import WireFormat

Matrix = NDArray[np.float32]

SCALE_BYTES: Final = 2
BITS: Final[dict[WireFormat, int]] = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
FLOATS: Final[dict[WireFormat, str]] = {"float32": "<f4", "float16": "<f2"}
_LARGEST_HALF: Final = np.float32(65504)
_SMALLEST_NORMAL: Final = np.finfo(np.float32).tiny
_NIBBLE_OFFSET: Final = 8


def coded_bytes(wire: WireFormat, rows: int, columns: int) -> int:
    """The bytes of a matrix: the scales of its rows, where the format has some, and its numbers."""
    scales = 0 if wire in FLOATS else SCALE_BYTES * rows
    return scales + -(-rows * columns * BITS[wire] // 8)


def code_rows(matrix: Matrix, wire: WireFormat, non_negative: bool) -> bytes:
    """A finite f32[R, C] in the format; `non_negative` says that no number is below 0.

    What is too large for float16 becomes the largest that is not.
    """
    if wire in FLOATS:
        fitting = np.clip(matrix, -_LARGEST_HALF, _LARGEST_HALF) if wire == "float16" else matrix
        return fitting.astype(FLOATS[wire]).tobytes()
    highest = _highest(wire, non_negative)
    largest = np.abs(matrix).max(axis=1)
    scales = rounded_up(largest / np.float32(highest), highest)
    upper = (scales.view(np.uint32) >> 16).astype("<u2").tobytes()
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales >= _SMALLEST_NORMAL)
    levels = np.rint(matrix * inverse[:, None])
    np.clip(levels, 0 if non_negative else -highest, highest, out=levels)
    return upper + _write_levels(levels, wire, non_negative)


def decode_rows(data: memoryview, wire: WireFormat, rows: int, columns: int, non_negative: bool) -> Matrix:
    """f32[rows, columns] of what `code_rows` wrote; `data` has `coded_bytes`.

    Raises:
        ProtocolError: `MALFORMED` for levels that it does not write, `NOT_FINITE`.
    """
    if wire in FLOATS:
        numbers: Matrix = np.frombuffer(data, FLOATS[wire]).astype(np.float32).reshape(rows, columns)
        if not np.isfinite(numbers).all():
            raise ProtocolError(Reason.NOT_FINITE, f"{wire} values contain NaN or infinity")
        return numbers
    upper = np.frombuffer(data[: SCALE_BYTES * rows], "<u2")
    if (upper >= INFINITE_SCALE).any():
        raise ProtocolError(Reason.NOT_FINITE, "a scale is negative, infinite or NaN")
    scales = (upper.astype(np.uint32) << 16).view(np.float32)
    levels = _read_levels(np.frombuffer(data[SCALE_BYTES * rows :], np.uint8), wire, rows * columns, non_negative)
    with np.errstate(over="ignore"):
        numbers = levels.reshape(rows, columns) * scales[:, None]
    if not np.isfinite(numbers).all():
        raise ProtocolError(Reason.NOT_FINITE, f"{wire} values overflow float32")
    return numbers


def _write_levels(levels: Matrix, wire: WireFormat, non_negative: bool) -> bytes:
    if wire == "int8":
        return levels.astype(np.uint8 if non_negative else np.int8).tobytes()
    return pack_nibbles((levels + (0 if non_negative else _NIBBLE_OFFSET)).astype(np.uint8).ravel()).tobytes()


def _read_levels(coded: Codes, wire: WireFormat, count: int, non_negative: bool) -> NDArray[np.int8] | Codes:
    codes = coded if wire == "int8" else unpack_nibbles(coded, count)
    if non_negative:
        return codes
    levels = codes.view(np.int8) if wire == "int8" else codes.view(np.int8) - np.int8(_NIBBLE_OFFSET)
    if int(levels.min()) < -_highest(wire, non_negative):
        raise ProtocolError(Reason.MALFORMED, f"level {levels.min()} is below -{_highest(wire, non_negative)}")
    return levels


def _highest(wire: WireFormat, non_negative: bool) -> int:
    """The highest level; the lowest is 0, or as far below."""
    return int(2 ** (BITS[wire] - (not non_negative)) - 1)
