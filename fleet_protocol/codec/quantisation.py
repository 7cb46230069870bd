"""Stage 2, quantise: how the values of kept entries are encoded.

A scale is the upper half of a float32 (bfloat16), so it costs two bytes and has float32's range. What that
and the rounding leave out is not lost: the sender subtracts exactly what its receiver will decode.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.errors import ProtocolError, Reason


class Quantisation(IntEnum):
    """A number format for values. The number is what travels; the lower-case name is what task.toml says."""

    FLOAT32 = 0
    TERNARY = 1
    """A sign per entry, a mean magnitude per tensor (Sparse Ternary Compression, Sattler et al. 2019, equation 8)."""
    FLOAT16 = 2
    INT8 = 3
    """-127 to 127 times a scale per tensor, rounded to nearest or stochastically (QSGD, Alistarh et al. 2017)."""
    INT4 = 4
    """-7 to 7, likewise."""
    SIGN = 5
    """A sign per entry, and for all of them their mean magnitude (EF-signSGD, Karimireddy et al. 2019, section 3)."""


_FLOATS: Final = {Quantisation.FLOAT32: "<f4", Quantisation.FLOAT16: "<f2"}
_LEVELS: Final = {Quantisation.INT8: 127, Quantisation.INT4: 7}
_LARGEST_HALF: Final = 65504.0
SCALE_BYTES: Final = 2
INFINITE_SCALE: Final = 0x7F80
_BITS: Final = {
    Quantisation.FLOAT32: 32,
    Quantisation.TERNARY: 1,
    Quantisation.FLOAT16: 16,
    Quantisation.INT8: 8,
    Quantisation.INT4: 4,
    Quantisation.SIGN: 1,
}


Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class QuantisedValues:
    """`scales` and `codes` are what travels; `codes` has a 0 or 1 for each value where the quantisation
    `is_one_bit`, else whole bytes. `values` float32 is what a receiver reads from them.
    """

    scales: bytes
    codes: Codes
    values: FloatVector


def scale_count(quantisation: Quantisation, kept_per_tensor: IndexVector) -> int:
    """How many scales travel: one for every tensor of which something is kept, one for all, or none."""
    return int(_runs(quantisation, kept_per_tensor).size) if quantisation not in _FLOATS else 0


def is_one_bit(quantisation: Quantisation) -> bool:
    """Whether a value is nothing but a sign."""
    return _BITS[quantisation] == 1


def code_bytes(quantisation: Quantisation, count: int) -> int:
    """The whole bytes that `count` codes take."""
    return -(-count * _BITS[quantisation] // 8)


def quantise(
    values: FloatVector,
    kept_per_tensor: IndexVector,
    quantisation: Quantisation,
    stochastic: np.random.Generator | None = None,
) -> QuantisedValues:
    """Quantise `values` (float32, tensor after tensor). Given a generator, integers are rounded stochastically."""
    if quantisation in _FLOATS:
        fitting = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF) if quantisation is Quantisation.FLOAT16 else values
        coded = fitting.astype(_FLOATS[quantisation]).view(np.uint8)
        scales = b""
    else:
        runs = _runs(quantisation, kept_per_tensor)
        exact = _scales(values, runs, quantisation)
        scales = (exact.view(np.uint32) >> 16).astype("<u2").tobytes()
        if quantisation in _LEVELS:
            codes = _integers(values, np.repeat(exact, runs), _LEVELS[quantisation], stochastic)
            is_int8 = quantisation is Quantisation.INT8
            coded = codes.view(np.uint8) if is_int8 else pack_nibbles((codes + 8).view(np.uint8))
        else:
            coded = np.signbit(values).view(np.uint8)
    return QuantisedValues(scales, coded, dequantise(scales, coded, kept_per_tensor, quantisation))


def dequantise(
    scales: bytes | memoryview, codes: Codes, kept_per_tensor: IndexVector, quantisation: Quantisation
) -> FloatVector:
    """Read scales and codes of the right lengths as float32 values.

    Raises:
        ProtocolError: `MALFORMED` for codes that `quantise` does not write, `NOT_FINITE` for such scales.
    """
    if quantisation in _FLOATS:
        return codes.view(_FLOATS[quantisation]).astype(np.float32)
    upper = np.frombuffer(scales, "<u2")
    if (upper >= INFINITE_SCALE).any():
        raise ProtocolError(Reason.NOT_FINITE, "a scale is negative, infinite or NaN")
    runs = _runs(quantisation, kept_per_tensor)
    values: FloatVector = np.repeat((upper.astype(np.uint32) << 16).view(np.float32), runs)
    if quantisation not in _LEVELS:
        return np.negative(values, out=values, where=codes.view(np.bool_))
    levels: NDArray[np.int8] = codes.view(np.int8)
    if quantisation is Quantisation.INT4:
        levels = unpack_nibbles(codes, values.size).view(np.int8) - np.int8(8)
    if levels.size and int(levels.min()) < -_LEVELS[quantisation]:
        raise ProtocolError(Reason.MALFORMED, f"value {levels.min()} is below -{_LEVELS[quantisation]}")
    with np.errstate(over="ignore"):
        values *= levels
    return values


def unpack_signs(coded: Codes, count: int) -> Codes:
    """The first `count` bits of whole bytes, as 0 and 1.

    Raises:
        ProtocolError: `MALFORMED`, where others are set.
    """
    return _checked(np.unpackbits(coded), count)


def _runs(quantisation: Quantisation, kept_per_tensor: IndexVector) -> IndexVector:
    """How many consecutive values share each scale."""
    kept = kept_per_tensor[kept_per_tensor > 0]
    return kept if quantisation is not Quantisation.SIGN or not kept.size else kept.sum(keepdims=True)


def _scales(values: FloatVector, runs: IndexVector, quantisation: Quantisation) -> FloatVector:
    if not runs.size:
        return np.empty(0, np.float32)
    starts = np.cumsum(runs) - runs
    magnitudes = np.abs(values)
    if quantisation in _LEVELS:
        largest: FloatVector = np.maximum.reduceat(magnitudes, starts)
        return rounded_up(largest / np.float32(_LEVELS[quantisation]), _LEVELS[quantisation])
    means: NDArray[np.float64] = np.add.reduceat(magnitudes, starts, dtype=np.float64) / runs
    return _cut_off(means.astype(np.float32))


def _cut_off(scales: FloatVector) -> FloatVector:
    return (scales.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def rounded_up(scales: FloatVector, levels: int) -> FloatVector:
    """The bfloat16 above each scale, so that no value exceeds `levels` times it, and that product is finite."""
    largest = _cut_off(np.array([np.finfo(np.float32).max / levels], np.float32))
    return np.minimum(_cut_off((scales.view(np.uint32) + np.uint32(0xFFFF)).view(np.float32)), largest)


def _integers(
    values: FloatVector, scales: FloatVector, levels: int, stochastic: np.random.Generator | None
) -> NDArray[np.int8]:
    scaled = np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)
    if stochastic is None:
        rounded = np.rint(scaled)
    else:
        rounded = np.floor(scaled + stochastic.random(values.size, dtype=np.float32))
    clipped: FloatVector = np.clip(np.nan_to_num(rounded), -levels, levels)
    return clipped.astype(np.int8)


def pack_nibbles(nibbles: Codes) -> Codes:
    """Numbers below 16, two to a byte, the first in its higher half."""
    if nibbles.size % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    packed: Codes = nibbles[0::2] << np.uint8(4) | nibbles[1::2]
    return packed


def unpack_nibbles(coded: Codes, count: int) -> Codes:
    """The first `count` numbers of whole bytes.

    Raises:
        ProtocolError: `MALFORMED`, where there is another behind them that is not 0.
    """
    codes = np.empty(2 * coded.size, np.uint8)
    codes[0::2], codes[1::2] = coded >> 4, coded & 0x0F
    return _checked(codes, count)


def _checked(codes: Codes, count: int) -> Codes:
    if codes[count:].any():
        raise ProtocolError(Reason.MALFORMED, "padding behind the last value is not zero")
    return codes[:count]
