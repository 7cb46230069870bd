"""Delta to bytes and back. The layout, format 1, all integers unsigned, little endian:

u8 format, u8 container (0 plain, 1 zstd), then the body, plain or as one zstd frame:
u8 quantisation (0 float32, 1 ternary)
per tensor: LEB128 kept; if kept > 0: u8 Rice parameter; if ternary: float32 magnitude
bits, first is the highest of its byte: per tensor the coded gaps; then, if ternary, a sign bit per entry
if float32: the values
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
import zstandard

from fleet_protocol.codec.index_coding import (
    MAX_RICE_PARAMETER,
    Bits,
    best_rice_parameter,
    gaps_of,
    read_indices,
    write_gaps,
)
from fleet_protocol.codec.sparse import FloatVector, IndexVector, SparseUpdate, select_top_k
from fleet_protocol.errors import ProtocolError, Reason

FORMAT = 1
ZSTD_LEVEL = 19
"""A few hundred bytes to a few kB are compressed: the level costs nothing that the training step does not dwarf."""

_PLAIN, _ZSTD = 0, 1


class Quantisation(IntEnum):
    """How kept values travel: as they are, or as a sign with one magnitude (their mean) per tensor."""

    FLOAT32 = 0
    TERNARY = 1


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """`packed` is what travels; `sent` is exactly what its receiver will decode."""

    packed: bytes
    sent: SparseUpdate


@dataclass(frozen=True, slots=True)
class _TensorHead:
    size: int
    kept: int
    parameter: int
    magnitude: float


def encode_update(
    delta: FloatVector, tensor_sizes: Sequence[int], *, keep_fraction: float, quantisation: Quantisation
) -> EncodedUpdate:
    """Compress `delta` (float32, finite, of length sum(tensor_sizes)).

    Ternary quantisation is that of Sparse Ternary Compression (Sattler et al. 2019, equation 8), per tensor.
    """
    indices = select_top_k(delta, keep_fraction)
    values = delta[indices]
    heads, index_bits = bytearray(), []
    bounds = np.concatenate([[0], np.cumsum(tensor_sizes)])
    cuts = np.searchsorted(indices, bounds)
    for start, (first, last) in zip(bounds, pairwise(cuts), strict=False):
        gaps = gaps_of(indices[first:last] - start)
        parameter = best_rice_parameter(gaps)
        heads += _leb128(gaps.size)
        if gaps.size:
            heads.append(parameter)
            index_bits.append(write_gaps(gaps, parameter))
            if quantisation is Quantisation.TERNARY:
                magnitude = np.abs(values[first:last]).mean(dtype=np.float64).astype(np.float32)
                heads += magnitude.tobytes()
                values[first:last] = np.copysign(magnitude, values[first:last])
    if quantisation is Quantisation.TERNARY:
        index_bits.append(np.signbit(values).astype(np.uint8))
    body = bytes([quantisation]) + heads + np.packbits(np.concatenate(index_bits)).tobytes()
    if quantisation is Quantisation.FLOAT32:
        body += values.astype("<f4").tobytes()
    return EncodedUpdate(_contain(body), SparseUpdate(indices, values))


def decode_update(packed: bytes, tensor_sizes: Sequence[int]) -> SparseUpdate:
    """Read what `encode_update` wrote, believing nothing.

    Raises:
        ProtocolError: `MALFORMED`, `INFLATES`, `INDEX_OUT_OF_RANGE`, `NOT_FINITE` or `WRONG_SHAPE`.
    """
    body = _contained(packed, limit=_largest_body(tensor_sizes))
    if not body or body[0] not in tuple(Quantisation):
        raise ProtocolError(Reason.MALFORMED, f"unknown quantisation {body[:1].hex() or 'missing'}")
    quantisation = Quantisation(body[0])
    heads, position = _read_heads(body, tensor_sizes, quantisation)
    total = sum(head.kept for head in heads)
    value_bytes = 4 * total if quantisation is Quantisation.FLOAT32 else 0
    coded = np.frombuffer(body, np.uint8, offset=position)[: len(body) - position - value_bytes]
    if 8 * coded.size > _most_bits(heads) + 7:
        raise ProtocolError(Reason.MALFORMED, f"{coded.size} bytes of indices and signs for {total} entries")
    bits = np.unpackbits(coded)
    indices, used = _read_all_indices(bits, heads)
    if quantisation is Quantisation.TERNARY:
        values = _read_signed(bits[used : used + total], heads, total)
        used += total
    else:
        values = np.frombuffer(body, "<f4", count=total, offset=len(body) - value_bytes).astype(np.float32)
    if bits.size - used >= 8 or bits[used:].any():
        raise ProtocolError(Reason.MALFORMED, f"{bits.size - used} bits after the last value")
    if not np.isfinite(values).all():
        raise ProtocolError(Reason.NOT_FINITE, "an update holds NaN or infinity")
    return SparseUpdate(indices, values)


def _read_heads(body: bytes, tensor_sizes: Sequence[int], quantisation: Quantisation) -> tuple[list[_TensorHead], int]:
    heads, position = [], 1
    try:
        for size in tensor_sizes:
            kept, position = _read_leb128(body, position)
            if kept > size:
                raise ProtocolError(Reason.WRONG_SHAPE, f"{kept} entries for a tensor of {size}")
            parameter, magnitude = 0, 1.0
            if kept:
                parameter = body[position]
                position += 1
                if quantisation is Quantisation.TERNARY:
                    (magnitude,) = struct.unpack_from("<f", body, position)
                    position += 4
            if parameter > MAX_RICE_PARAMETER or kept << parameter > 2 * size:
                raise ProtocolError(Reason.MALFORMED, f"Rice parameter {parameter} for {kept} of {size} entries")
            heads.append(_TensorHead(size, kept, parameter, magnitude))
    except (IndexError, struct.error) as error:
        raise ProtocolError(Reason.MALFORMED, f"update ends in the head of tensor {len(heads)}") from error
    if len(body) - position < (4 if quantisation is Quantisation.FLOAT32 else 0) * sum(head.kept for head in heads):
        raise ProtocolError(Reason.MALFORMED, "update ends before its last value")
    return heads, position


def _most_bits(heads: Sequence[_TensorHead]) -> int:
    """The most bits that valid indices and signs take: the gaps of a tensor add up to less than its size."""
    return sum(head.kept * (head.parameter + 2) + (head.size >> head.parameter) for head in heads if head.kept)


def _read_all_indices(bits: Bits, heads: Sequence[_TensorHead]) -> tuple[IndexVector, int]:
    parts, start, used = [np.empty(0, np.int64)], 0, 0
    for head in heads:
        indices, length = read_indices(bits[used:], head.kept, head.parameter, head.size)
        parts.append(indices + start)
        start += head.size
        used += length
    return np.concatenate(parts), used


def _read_signed(signs: Bits, heads: Sequence[_TensorHead], total: int) -> FloatVector:
    if signs.size < total:
        raise ProtocolError(Reason.MALFORMED, f"{signs.size} signs for {total} entries")
    magnitudes = np.repeat([head.magnitude for head in heads], [head.kept for head in heads]).astype(np.float32)
    return np.where(signs == 1, -magnitudes, magnitudes)


def _contain(body: bytes) -> bytes:
    compressed = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False).compress(body)
    if len(compressed) < len(body):
        return bytes([FORMAT, _ZSTD]) + compressed
    return bytes([FORMAT, _PLAIN]) + body


def _contained(packed: bytes, limit: int) -> bytes:
    if len(packed) < 2 or packed[0] != FORMAT or packed[1] not in {_PLAIN, _ZSTD}:
        raise ProtocolError(Reason.MALFORMED, f"update starts with {packed[:2].hex()!r}, not with a known format")
    if packed[1] == _PLAIN:
        if len(packed) - 2 > limit:
            raise ProtocolError(Reason.TOO_LARGE, f"update body of {len(packed) - 2} bytes exceeds {limit}")
        return packed[2:]
    return decompress(packed[2:], limit)


def decompress(data: bytes, limit: int) -> bytes:
    """Decompress one zstd frame that declares at most `limit` bytes.

    python-zstandard ignores `max_output_size` for frames that declare a size and allocates what they declare, so
    the declaration is read first. A frame that holds more than it declares fails inside libzstd.

    Raises:
        ProtocolError: `INFLATES` or `MALFORMED`.
    """
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared == zstandard.CONTENTSIZE_UNKNOWN or declared > limit:
            raise ProtocolError(Reason.INFLATES, f"zstd frame declares {declared} bytes; at most {limit} are allowed")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ProtocolError(Reason.MALFORMED, f"zstd: {error}") from error


def _largest_body(tensor_sizes: Sequence[int]) -> int:
    return 64 + 16 * len(tensor_sizes) + 8 * sum(tensor_sizes)


def _leb128(value: int) -> bytes:
    coded = bytearray()
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = data[position + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + shift // 7 + 1
    raise ProtocolError(Reason.MALFORMED, "a length takes more than 5 bytes")
