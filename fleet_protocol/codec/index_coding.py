"""Golomb-Rice coding of ascending indices (Rice and Plaunt 1971), split so that numpy can read it without a loop.

An index is sent as its gap to the one before. With parameter r, a gap is a quotient `gap >> r` in unary and a
remainder of r bits. All quotients of a tensor stand together (zeros, then a one, for each), then all remainders.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import IndexVector
from fleet_protocol.errors import ProtocolError, Reason

MAX_RICE_PARAMETER = 24

Bits = NDArray[np.uint8]


def best_rice_parameter(gaps: IndexVector) -> int:
    """The r with the fewest bits for these gaps (int64, each >= 0); found by trying those around log2 of the mean."""
    mean = float(gaps.mean()) if gaps.size else 0.0
    around = int(math.log2(mean + 1))
    candidates = range(max(0, around - 2), min(MAX_RICE_PARAMETER, around + 1) + 1)
    return min(candidates, key=lambda r: int((gaps >> r).sum()) + r * gaps.size)


def gaps_of(indices: IndexVector) -> IndexVector:
    """Ascending indices to gaps: entries skipped since the one before, so neighbours have gap 0."""
    return np.diff(indices, prepend=-1) - 1


def write_gaps(gaps: IndexVector, parameter: int) -> Bits:
    """Code gaps as a vector of bits (uint8, 0 or 1)."""
    ends = np.cumsum((gaps >> parameter) + 1)
    quotients = np.zeros(int(ends[-1]) if ends.size else 0, dtype=np.uint8)
    quotients[ends - 1] = 1
    shifts = np.arange(parameter - 1, -1, -1, dtype=np.int64)
    remainders = ((gaps[:, None] >> shifts) & 1).astype(np.uint8).ravel()
    return np.concatenate([quotients, remainders])


def read_indices(bits: Bits, count: int, parameter: int, size: int) -> tuple[IndexVector, int]:
    """Read `count` indices below `size` from the front of `bits`; returns them with the number of bits used.

    Raises:
        ProtocolError: `MALFORMED` where the bits end early, `INDEX_OUT_OF_RANGE` where an index is not below `size`.
    """
    # No valid stream has more quotient bits than `count` ones and the zeros of gaps that fit into the tensor.
    ones = np.flatnonzero(bits[: count + (size >> parameter)])[:count]
    if ones.size < count:
        raise ProtocolError(Reason.MALFORMED, f"index stream ends after {ones.size} of {count} indices")
    start = int(ones[-1]) + 1 if count else 0
    end = start + count * parameter
    if end > bits.size:
        raise ProtocolError(Reason.MALFORMED, f"index stream has {bits.size - start} of {end - start} remainder bits")
    quotients = np.diff(ones, prepend=-1) - 1
    weights = 1 << np.arange(parameter - 1, -1, -1, dtype=np.int64)
    remainders = bits[start:end].reshape(count, parameter) @ weights
    indices = np.cumsum((quotients << parameter) + remainders + 1) - 1
    if count and int(indices[-1]) >= size:
        raise ProtocolError(Reason.INDEX_OUT_OF_RANGE, f"index {int(indices[-1])} in a tensor of {size} entries")
    return indices, end
