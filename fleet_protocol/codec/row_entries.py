"""Some entries of every row of a matrix, as many in each: which ones a gradient keeps, and how their places travel."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.row_levels import Matrix
from fleet_protocol.codec.selection import kept_count
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.split_plan import GradientSelection

Places = NDArray[np.int64]
"""int64 [R, k]: in each row the columns of its k entries, ascending."""

RANDOM_SHARE: Final = 0.1
"""Of the entries that `random_top_k` keeps: those that are none of the largest (alpha in Zheng et al. 2023)."""


def choose(matrix: Matrix, selection: GradientSelection, keep: float, generator: np.random.Generator) -> Places:
    """The entries of f32[R, C] that travel: `keep` of each row, at least one.

    `top_k` keeps the largest in magnitude. `random_top_k` (RandTopk: Zheng et al. 2023, "Reducing communication for
    split learning by randomized top-k sparsification", section 4) draws each entry, without putting it back, from the
    k largest with probability 1 - alpha, and else from the others; `generator` is for that alone.
    """
    columns = matrix.shape[1]
    count = kept_count(columns, keep)
    if count == columns or selection == "dense":
        return np.broadcast_to(np.arange(columns), matrix.shape)
    largest = np.argpartition(np.abs(matrix), columns - count, axis=1)[:, columns - count :]
    if selection == "top_k":
        return np.sort(largest, axis=1)
    return _some_replaced(largest, columns, generator)


def _some_replaced(largest: Places, columns: int, generator: np.random.Generator) -> Places:
    """A binomial number of each row's `largest` replaced by as many others, all drawn evenly."""
    rows, count = largest.shape
    others = np.minimum(generator.binomial(count, RANDOM_SHARE, size=(rows, 1)), columns - count)
    draws = generator.random((rows, columns), dtype=np.float32)
    np.put_along_axis(draws, largest, np.take_along_axis(draws, largest, axis=1) - 1, axis=1)
    order = np.argsort(draws, axis=1)  # the largest first, in random order; then all others
    ranks = np.broadcast_to(np.arange(count), (rows, count))
    chosen = np.take_along_axis(order, np.where(ranks < others, count + ranks, ranks), axis=1)
    return np.sort(chosen, axis=1)


def place_bytes(rows: int, columns: int, count: int) -> int:
    """What the places of `count` entries in each row take."""
    return -(-rows * min(columns, count * _width(columns)) // 8)


def pack_places(places: Places, columns: int) -> bytes:
    """The places: for each row a bit for every column, or a number for every place where that is shorter."""
    rows, count = places.shape
    if columns <= count * _width(columns):
        bits = np.zeros((rows, columns), np.uint8)
        np.put_along_axis(bits, places, 1, axis=1)
    else:
        shifts = np.arange(_width(columns) - 1, -1, -1)
        bits = (places[:, :, None] >> shifts & 1).astype(np.uint8)
    return np.packbits(bits).tobytes()


def unpack_places(data: memoryview, rows: int, columns: int, count: int) -> Places:
    """The places that `pack_places` wrote; `data` has `place_bytes`.

    Raises:
        ProtocolError: `MALFORMED`, where a row has another number of entries, or places don't ascend; or
            `INDEX_OUT_OF_RANGE`.
    """
    width = _width(columns)
    per_row = min(columns, count * width)
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[rows * per_row :].any():
        raise ProtocolError(Reason.MALFORMED, "padding behind the last place is not zero")
    bits = bits[: rows * per_row]
    if columns <= count * width:
        table = bits.reshape(rows, columns)
        if (table.sum(axis=1, dtype=np.int64) != count).any():
            raise ProtocolError(Reason.MALFORMED, f"a row has not the {count} entries that all have")
        return np.nonzero(table)[1].reshape(rows, count)
    places = bits.reshape(rows, count, width) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
    if (places[:, -1] >= columns).any():
        raise ProtocolError(Reason.INDEX_OUT_OF_RANGE, f"place {places[:, -1].max()} in a row of {columns}")
    if (np.diff(places, axis=1) <= 0).any():
        raise ProtocolError(Reason.MALFORMED, "places of a row don't ascend")
    return places


def _width(columns: int) -> int:
    """Bits of a place's number."""
    return max(1, (columns - 1).bit_length())
