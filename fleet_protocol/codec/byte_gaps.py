"""Many LEB128 numbers at once: gaps as whole bytes, in which zstd finds the patterns that rows have in common."""

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import IndexVector
from fleet_protocol.errors import ProtocolError, Reason

MAX_NUMBER_BYTES = 4
_WINDOW_BYTES = 1 << 13


def write_numbers(numbers: IndexVector) -> bytes:
    """Numbers from 0 to 2^28 - 1, one behind the other."""
    lengths = np.ones(numbers.size, np.int64)
    for more in range(1, MAX_NUMBER_BYTES):
        lengths += (numbers >> 7 * more > 0).astype(np.int64)
    ends = np.cumsum(lengths)
    coded = np.zeros(int(ends[-1]) if ends.size else 0, np.uint8)
    for place in range(MAX_NUMBER_BYTES):
        there = lengths > place
        continued = np.where(lengths[there] > place + 1, 0x80, 0)
        coded[(ends - lengths)[there] + place] = numbers[there] >> 7 * place & 0x7F | continued
    return coded.tobytes()


def read_numbers(data: memoryview, count: int) -> tuple[IndexVector, int]:
    """`count` numbers from the front of `data`, and the bytes that they took; read window by window, to save memory.

    Raises:
        ProtocolError: `MALFORMED`, where they end early, or one is too long or not in its shortest form.
    """
    numbers = np.empty(count, np.int64)
    found = 0
    position = 0
    while found < count:
        window = np.frombuffer(data[position : position + _WINDOW_BYTES], np.uint8)
        ends = np.flatnonzero(window < 0x80)[: count - found]
        if not ends.size:
            raise ProtocolError(Reason.MALFORMED, f"gaps end after {found} of {count}")
        numbers[found : found + ends.size] = _numbers(window, ends)
        found += ends.size
        position += int(ends[-1]) + 1
    return numbers, position


def _numbers(window: NDArray[np.uint8], ends: IndexVector) -> IndexVector:
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > MAX_NUMBER_BYTES or ((window[ends] == 0) & (lengths > 1)).any():
        raise ProtocolError(Reason.MALFORMED, "a gap is too long or not in its shortest form")
    numbers = np.zeros(ends.size, np.int64)
    for place in range(int(lengths.max())):
        byte = window[np.minimum(starts + place, ends)].astype(np.int64) & 0x7F
        numbers |= np.where(lengths > place, byte << 7 * place, 0)
    return numbers
