"""A version of the weights packed as its difference from another, or from nothing. docs/wire-format.md has the layout.

    difference -> zigzag -> byte planes -> zstd where it pays

Weights on a grid differ by integers: few bits for each. Others differ in the bits of their float32 numbers. Either way
the receiver gets the very same weights, bit for bit.
"""

from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from fleet_protocol.codec.container import decompress
from fleet_protocol.codec.grid import MAX_EXPONENT, MIN_EXPONENT, Grid
from fleet_protocol.codec.leb128 import read_leb128, write_leb128
from fleet_protocol.codec.sparse import FloatVector, Shapes, TensorLayout
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import KIB

FORMAT = 1
_FORMAT_SHIFT = 5
_WHOLE = 0x10
_ON_GRID = 0x08
_PLANES = 0x07
_MAX_PLANES = 4
_THOROUGH_LEVEL, _QUICK_LEVEL = 15, 3
_THOROUGH_UP_TO = 64 * KIB
"""Bytes of a plane up to which the thorough level takes some ten milliseconds at most. Higher levels find no more."""


@dataclass(frozen=True, slots=True)
class DifferenceHead:
    """The first byte. `whole`: from nothing; `on_grid`: integers, not bits; `planes`: bytes that the largest takes."""

    whole: bool
    on_grid: bool
    planes: int


def encode_difference(base: FloatVector | None, target: FloatVector, shapes: Shapes, grid: Grid | None) -> bytes:
    """Pack `target` for a receiver that has `base`, or nothing. Both float32, finite, the tensors of `shapes`."""
    whole = base is None
    start = np.zeros_like(target) if base is None else base
    if grid is not None:
        sizes = np.diff(TensorLayout.of(shapes).starts)
        integers = grid.integers(target, sizes)
        apart = integers - grid.integers(start, sizes)
        if np.array_equal(_bits(grid.weights(integers, sizes)), _bits(target)) and np.abs(apart).max() < 2**31:
            return _write(apart.astype(np.int32), grid, whole=whole)
    return _write(_bits(target) - _bits(start), None, whole=whole)


def apply_difference(base: FloatVector | None, packed: bytes, shapes: Shapes) -> FloatVector:
    """The weights that `encode_difference` packed for a receiver that has `base`; every part of `packed` is checked.

    Raises:
        ProtocolError: `MALFORMED`, `INFLATES`, `TOO_LARGE`, `OUT_OF_BOUNDS`, `NOT_FINITE`, or `UNKNOWN_VERSION` where a
            base is needed.
    """
    layout = TensorLayout.of(shapes)
    head = read_head(packed)
    if base is None and not head.whole:
        raise ProtocolError(Reason.UNKNOWN_VERSION, "the difference is from another version, and there is none here")
    start = np.zeros(layout.size, np.float32) if base is None or head.whole else base
    position = 1
    if head.on_grid:
        position += layout.rows.size
        grid = _read_grid(packed[1:position], layout.rows.size)
    codes = _read_planes(memoryview(packed)[position:], head.planes, layout.size)
    apart = (codes >> np.uint32(1)).view(np.int32) ^ -(codes & np.uint32(1)).view(np.int32)
    target = _on_grid(start, apart, grid, layout) if head.on_grid else (_bits(start) + apart).view(np.float32)
    if not np.isfinite(target).all():
        raise ProtocolError(Reason.NOT_FINITE, "the difference gives NaN or infinity")
    return target


def memory_bound(shapes: Shapes) -> int:
    """Bytes that applying a difference of these shapes may take: steps and integers are float64 while it is added."""
    return 64 * KIB + 40 * TensorLayout.of(shapes).size


def read_head(packed: bytes) -> DifferenceHead:
    """What the first byte says.

    Raises:
        ProtocolError: `MALFORMED`.
    """
    if not packed or packed[0] >> _FORMAT_SHIFT != FORMAT or packed[0] & _PLANES > _MAX_PLANES:
        raise ProtocolError(Reason.MALFORMED, f"difference starts with {packed[:1].hex()!r}, not with a known format")
    first = packed[0]
    return DifferenceHead(bool(first & _WHOLE), bool(first & _ON_GRID), first & _PLANES)


def _write(apart: NDArray[np.int32], grid: Grid | None, *, whole: bool) -> bytes:
    codes = ((apart << np.int32(1)) ^ (apart >> np.int32(31))).view(np.uint32)
    count = (int(codes.max()).bit_length() + 7) // 8
    first = FORMAT << _FORMAT_SHIFT | (_WHOLE if whole else 0) | (_ON_GRID if grid is not None else 0) | count
    planes = codes.astype("<u4").view(np.uint8).reshape(-1, 4).T[:count]
    exponents = grid.exponents.tobytes() if grid is not None else b""
    return bytes([first]) + exponents + b"".join(_write_plane(plane.tobytes()) for plane in planes)


def _write_plane(plane: bytes) -> bytes:
    level = _THOROUGH_LEVEL if len(plane) <= _THOROUGH_UP_TO else _QUICK_LEVEL
    compressed = zstandard.ZstdCompressor(level=level, write_checksum=False).compress(plane)
    stored = min(plane, compressed, key=len)
    return write_leb128(len(stored)) + stored


def _read_planes(data: memoryview, count: int, size: int) -> NDArray[np.uint32]:
    codes = np.zeros((size, 4), np.uint8)
    position = 0
    for plane in range(count):
        stored, position = _take(data, position)
        content = stored if len(stored) == size else decompress(stored, size)
        if len(content) != size:
            raise ProtocolError(Reason.MALFORMED, f"a plane of {len(content)} bytes for {size} weights")
        codes[:, plane] = np.frombuffer(content, np.uint8)
    if position != len(data):
        raise ProtocolError(Reason.MALFORMED, f"{len(data) - position} bytes behind a difference")
    return codes.view("<u4").ravel().astype(np.uint32, copy=False)


def _take(data: memoryview, position: int) -> tuple[bytes, int]:
    try:
        length, start = read_leb128(data, position)
    except IndexError:
        raise ProtocolError(Reason.MALFORMED, "the difference ends within a length") from None
    stored = bytes(data[start : start + length])
    if len(stored) < length:
        raise ProtocolError(Reason.MALFORMED, f"a plane of {length} bytes, {len(stored)} are there")
    return stored, start + length


def _read_grid(data: bytes, tensors: int) -> Grid:
    exponents = np.frombuffer(data, np.int8)
    if exponents.size != tensors:
        raise ProtocolError(Reason.MALFORMED, "the difference ends within its steps")
    if (exponents < MIN_EXPONENT).any() or (exponents > MAX_EXPONENT).any():
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"a step is not 2^{MIN_EXPONENT} to 2^{MAX_EXPONENT}")
    return Grid(exponents)


def _on_grid(start: FloatVector, apart: NDArray[np.int32], grid: Grid, layout: TensorLayout) -> FloatVector:
    sizes = np.diff(layout.starts)
    return grid.weights(grid.integers(start, sizes) + apart, sizes)


def _bits(weights: FloatVector) -> NDArray[np.int32]:
    return weights.view(np.int32)
