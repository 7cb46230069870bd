"""Whole numbers of `width` bits each in a string of bits: number i has bits [i width, (i + 1) width). Pure.

The lowest bit comes first, in a byte too; the last byte is filled up with zeros. Eight numbers take `width` whole
bytes, so every step below is one for all groups of eight.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ProtocolError, Reason

Words = NDArray[np.uint32]

SMALLEST_WIDTH: Final = 8
"""So that a byte has bits of two numbers at most."""
LARGEST_WIDTH: Final = 32
_GROUP: Final = 8


def packed_bytes(count: int, width: int) -> int:
    """How many bytes `count` numbers take."""
    return -(-count * width // 8)


def pack(numbers: Words, width: int) -> bytes:
    """The lowest `width` bits (8 to 32) of each number."""
    filled = np.zeros(-(-numbers.size // _GROUP) * _GROUP, np.uint64)
    filled[: numbers.size] = numbers & _mask(width)
    groups = np.pad(filled.reshape(-1, _GROUP), ((0, 0), (0, 1)))  # behind the last number of a group comes nothing
    packed = np.empty((groups.shape[0], width), np.uint8)
    for place in range(width):
        first, skipped = divmod(_GROUP * place, width)
        both = groups[:, first] | groups[:, first + 1] << np.uint64(width)
        packed[:, place] = both >> np.uint64(skipped) & np.uint64(0xFF)
    return packed.tobytes()[: packed_bytes(numbers.size, width)]


def unpack(data: bytes, count: int, width: int) -> Words:
    """The `count` numbers that `pack` wrote.

    Raises:
        ProtocolError: `WRONG_SHAPE`: another number of bytes. `MALFORMED`: a bit behind the last number is set.
    """
    expected = packed_bytes(count, width)
    if len(data) != expected:
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"{len(data)} bytes for {count} numbers of {width} bits, which take {expected}"
        )
    unused = 8 * expected - count * width
    if unused and data[-1] >> (8 - unused):
        raise ProtocolError(Reason.MALFORMED, f"the last {unused} bits, behind the last number, are not zero")
    groups = -(-count // _GROUP)
    packed = np.zeros((groups, width + 5), np.uint64)  # a number that ends with its group reads four bytes more
    whole = np.frombuffer(data.ljust(groups * width, b"\0"), np.uint8)
    packed[:, :width] = whole.reshape(groups, width)
    numbers = np.empty((groups, _GROUP), np.uint32)
    for place in range(_GROUP):
        first, skipped = divmod(place * width, 8)
        window = packed[:, first].copy()
        for byte in range(1, 5):
            window |= packed[:, first + byte] << np.uint64(8 * byte)
        numbers[:, place] = (window >> np.uint64(skipped)).astype(np.uint32) & _mask(width)
    return numbers.reshape(-1)[:count]


def _mask(width: int) -> np.uint32:
    return np.uint32((1 << width) - 1)
