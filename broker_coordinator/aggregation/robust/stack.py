"""Updates side by side, as rules compare them. Pure.

    x_i = w_i / (mean of all w) * delta_i

w_i is what update i weighs among others, by samples and staleness: the mean of all x_i is the weighted mean, and a
rule that takes its place treats all x_i alike. An entry that an update does not hold is 0: it stays in the device's
residual. Sums run in numpy, in a fixed order, and never in BLAS, which gives other bits on other processors.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import IndexVector

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

MOST_VALUES: Final = 1 << 20
"""Written out at a time: 8 MiB, whatever the number of updates and the size of the model."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One x_i: `values` float64 at `indices`, which ascend."""

    indices: IndexVector
    values: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Some x_i, in a fixed order, of a flat weight vector of `size` values."""

    changes: Sequence[Change]
    size: int

    @staticmethod
    def of(weighted: Sequence[tuple[float, SparseUpdate]], size: int) -> "Stack":
        """Weights and deltas; empty where nothing weighs anything."""
        total = sum(weight for weight, _ in weighted)
        if not total > 0:
            return Stack((), size)
        return Stack(
            [
                Change(delta.indices, weight * len(weighted) / total * delta.values.astype(np.float64))
                for weight, delta in weighted
            ],
            size,
        )

    def __len__(self) -> int:
        return len(self.changes)

    def take(self, places: Sequence[int]) -> "Stack":
        """Some of them, in the order of `places`."""
        return Stack([self.changes[place] for place in places], self.size)

    def combined(self, coefficients: Sequence[float] | Vector) -> Vector:
        """sum(c_i * x_i), float64, as long as the flat weights."""
        total = np.zeros(self.size)
        for coefficient, change in zip(coefficients, self.changes, strict=True):
            np.add.at(total, change.indices, coefficient * change.values)
        return total

    def mean(self) -> Vector:
        """Zero where there is none."""
        return self.combined([1 / len(self)] * len(self)) if len(self) else np.zeros(self.size)

    def distances_to(self, centre: Vector) -> Vector:
        """|x_i - centre|, float64 [N]."""
        whole = _squared(centre)
        return np.array([math.sqrt(_squared_distance(change, centre, whole)) for change in self.changes])

    def norms(self) -> Vector:
        """|x_i|, float64 [N]."""
        return np.array([math.sqrt(_squared(change.values)) for change in self.changes])

    def cosines_to(self, direction: Vector) -> Vector:
        """cos(x_i, direction), float64 [N]; 0 where either is 0."""
        along = np.array([float(np.sum(direction[change.indices] * change.values)) for change in self.changes])
        lengths = self.norms() * math.sqrt(_squared(direction))
        return np.asarray(np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 0))

    def products(self) -> Matrix:
        """<x_i, x_j>, float64 [N, N]."""
        found = np.zeros((len(self), len(self)))
        written = np.zeros(self.size)
        for row, one in enumerate(self.changes):
            written[one.indices] = one.values
            for column, other in enumerate(self.changes[row:], row):
                found[row, column] = found[column, row] = np.sum(written[other.indices] * other.values)
            written[one.indices] = 0
        return found

    def columns(self) -> Iterator[tuple[slice, Matrix]]:
        """All of them written out, some columns at a time: where these are, and float64 [N, C], NaN where not sent."""
        width = max(1, MOST_VALUES // max(1, len(self)))
        for start in range(0, self.size, width):
            end = min(start + width, self.size)
            written = np.full((len(self), end - start), np.nan)
            for row, change in zip(written, self.changes, strict=True):
                first, last = np.searchsorted(change.indices, (start, end))
                row[change.indices[first:last] - start] = change.values[first:last]
            yield slice(start, end), written


def squared_distances(products: Matrix) -> Matrix:
    """|x_i - x_j|^2 from <x_i, x_j>, float64 [N, N]; rounding leaves none below 0."""
    squares = np.diagonal(products)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0)


def _squared(vector: Vector) -> float:
    return float(np.sum(np.square(vector)))


def _squared_distance(change: Change, centre: Vector, squared_centre: float) -> float:
    there = centre[change.indices]
    return _squared(change.values - there) + max(squared_centre - _squared(there), 0.0)
