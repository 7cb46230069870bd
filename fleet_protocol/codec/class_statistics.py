"""How a device's features are distributed in each class, as sums that add up over devices. docs/one-message.md.

    counts, LEB128 | class means, a block | spread, a block

A block is the power of two that its largest magnitude fits into, as one signed byte, and its numbers as shares of
that: so the small floats hold large numbers too, and no bit is lost by it. In int8 a share is a whole number of
128ths, -127 to 127 of them. Only classes that are there have rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.leb128 import read_leb128, write_leb128
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.solved_head import Precision, Solver

Table = NDArray[np.float64]

WIRE_TYPES: Final[dict[Precision, np.dtype[Any]]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
WHOLE = {"int8": 128.0}
"""What a share of 1 would be as a number on the wire, where that is not 1. A power of two: what is read and written
again is the same.
"""
LARGEST_WHOLE = 127.0
MIN_EXPONENT, MAX_EXPONENT = -128, 127


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """Of one device or of many: `counts` int64[C] samples of each class; `means` float64[C, D] of their features, zero
    where there is none.

    `spread` is what a solver needs beside them, float64. `means`: nothing, [0]. `gaussian`: the variance of each
    feature in each class, [C, D], zero where there is none. `ridge`: the lower triangle of the covariance within
    classes, row by row, [D * (D + 1) / 2]: the mean over all samples of (x - mean of its class)(x - mean of its
    class)^T.
    """

    counts: NDArray[np.int64]
    means: Table
    spread: Table

    @classmethod
    def of(
        cls, features: NDArray[np.floating], labels: NDArray[np.int64], classes: int, solver: Solver
    ) -> "ClassStatistics":
        """Those of features [N, D] with labels int64[N]; N is at least 1."""
        table = np.asarray(features, np.float64)
        counts = np.bincount(labels, minlength=classes)
        sums = np.zeros((classes, table.shape[1]))
        np.add.at(sums, labels, table)
        means = sums / np.maximum(counts, 1)[:, None]
        return cls(counts, means, _spread(table - means[labels], labels, counts, solver))

    @property
    def samples(self) -> int:
        """Over all classes."""
        return int(self.counts.sum())

    @property
    def present(self) -> NDArray[np.bool_]:
        """Of which classes there are samples, bool[C]."""
        return self.counts > 0

    @property
    def covariance(self) -> Table:
        """Of `ridge`: the whole symmetric matrix within classes, [D, D]."""
        size = self.means.shape[1]
        matrix = np.zeros((size, size))
        matrix[np.tril_indices(size)] = self.spread
        return matrix + np.tril(matrix, -1).T

    def encode(self, precision: Precision, solver: Solver) -> bytes:
        """The packed form; rounded to `precision`."""
        spread = self.spread[self.present] if solver == "gaussian" else self.spread
        counts = b"".join(map(write_leb128, self.counts.tolist()))
        return counts + _write_block(self.means[self.present], precision) + _write_block(spread, precision)


def decode_class_statistics(
    packed: bytes, classes: int, features: int, precision: Precision, solver: Solver
) -> ClassStatistics:
    """Read `ClassStatistics.encode`.

    Raises:
        ProtocolError: `MALFORMED`, `WRONG_SHAPE` or `NOT_FINITE`.
    """
    counts, start = _read_counts(packed, classes)
    present = np.flatnonzero(counts)
    rows = (len(present), features)
    shapes = [rows, {"means": (0,), "gaussian": rows, "ridge": (features * (features + 1) // 2,)}[solver]]
    number_bytes = WIRE_TYPES[precision].itemsize
    size = start + sum((1 + math.prod(shape) * number_bytes) if math.prod(shape) else 0 for shape in shapes)
    if len(packed) != size:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"feature statistics of {len(packed)} bytes; {len(present)} classes of {features} features take {size}"
            f" for the solver {solver!r} in {precision}",
        )
    blocks = []
    for shape in shapes:
        block, start = _read_block(packed, start, shape, precision)
        blocks.append(block)
    means = np.zeros((classes, features))
    means[present] = blocks[0]
    spread = blocks[1]
    if solver == "gaussian":
        spread = np.zeros((classes, features))
        spread[present] = blocks[1]
    return ClassStatistics(counts, means, spread)


def rounding_of(precision: Precision) -> float:
    """By what share of the largest number of a block any of its numbers may be off."""
    return 1 / WHOLE[precision] if precision in WHOLE else float(np.finfo(WIRE_TYPES[precision]).eps)


def rounding_norm(covariance: Table, precision: Precision) -> float:
    """At most the Frobenius norm of what `encode` took from a covariance that is read as this one, in floats: each
    number C_ij is off by eps / 2 |C_ij|, or by half of the smallest number (Higham 2002, theorem 2.2, equation 2.8).
    So the norm is at most eps / 2 |C|_F + D / 2 times the smallest; |C|_F is no more than the trace of any covariance.
    """
    wire = np.finfo(WIRE_TYPES[precision])
    norm = min(float(np.linalg.norm(covariance)), float(np.trace(covariance)))
    smallest = math.ldexp(float(wire.smallest_subnormal), _exponent(np.diagonal(covariance)))
    eps = float(wire.eps)
    return (1 + eps) * (eps * norm + smallest * len(covariance)) / 2


def _spread(centred: Table, labels: NDArray[np.int64], counts: NDArray[np.int64], solver: Solver) -> Table:
    if solver == "means":
        return np.zeros(0)
    if solver == "gaussian":
        squares = np.zeros((counts.size, centred.shape[1]))
        np.add.at(squares, labels, np.square(centred))
        return squares / np.maximum(counts, 1)[:, None]
    covariance: Table = centred.T @ centred / len(centred)
    return covariance[np.tril_indices(len(covariance))]


def _read_counts(packed: bytes, classes: int) -> tuple[NDArray[np.int64], int]:
    counts = np.zeros(classes, np.int64)
    position = 0
    try:
        for place in range(classes):
            counts[place], position = read_leb128(packed, position)
    except IndexError:
        raise ProtocolError(
            Reason.MALFORMED, f"{len(packed)} bytes end within the counts of {classes} classes"
        ) from None
    return counts, position


def _exponent(numbers: Table) -> int:
    """Of the power of two that the largest magnitude fits into."""
    return min(MAX_EXPONENT, max(MIN_EXPONENT, math.frexp(float(np.abs(numbers).max()))[1]))


def _write_block(numbers: Table, precision: Precision) -> bytes:
    if not numbers.size:
        return b""
    exponent = _exponent(numbers)
    shares = np.ldexp(numbers, -exponent)
    if precision in WHOLE:
        shares = np.rint(shares * WHOLE[precision]).clip(-LARGEST_WHOLE, LARGEST_WHOLE)
    return exponent.to_bytes(1, "big", signed=True) + shares.astype(WIRE_TYPES[precision]).tobytes()


def _read_block(packed: bytes, start: int, shape: Sequence[int], precision: Precision) -> tuple[Table, int]:
    count, wire = math.prod(shape), WIRE_TYPES[precision]
    if not count:
        return np.zeros(shape), start
    exponent = int.from_bytes(packed[start : start + 1], "big", signed=True)
    with np.errstate(all="ignore"):  # what comes of hostile numbers is looked at below
        shares = np.frombuffer(packed, wire, count, start + 1).astype(np.float64).reshape(shape)
        numbers = np.ldexp(shares / WHOLE.get(precision, 1.0), exponent)
    if not np.isfinite(numbers).all():
        raise ProtocolError(Reason.NOT_FINITE, "feature statistics hold NaN, infinity, or numbers that become one")
    return numbers, start + 1 + count * wire.itemsize
