"""How the values of some columns are distributed, as sums that add up: count, mean, and squared deviations."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ProtocolError, Reason

ROWS = 3


@dataclass(frozen=True, slots=True)
class Moments:
    """Of each column, float64 [C]: how many values there are, their mean, and the sum of their squared distances from
    it. Values that are missing (NaN) don't count.
    """

    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Moments":
        """Those of a table f32[N, C]."""
        table = values.astype(np.float64)
        there = ~np.isnan(table)
        counts = there.sum(axis=0).astype(np.float64)
        means = np.where(there, table, 0).sum(axis=0) / np.maximum(counts, 1)
        squares = np.square(np.where(there, table - means, 0)).sum(axis=0)
        return cls(counts, means, squares)

    @property
    def deviations(self) -> NDArray[np.float64]:
        """The standard deviation of each column; 0 where there is no value."""
        return np.sqrt(self.squares / np.maximum(self.counts, 1))

    def weighing(self, most: NDArray[np.float64]) -> "Moments":
        """The same distributions, as of at most so many values each."""
        counts = np.minimum(self.counts, most)
        return Moments(counts, self.means, self.squares * counts / np.maximum(self.counts, 1))

    def beside(self, other: "Moments") -> "Moments":
        """The columns of both, those of the other one behind."""
        return Moments(*(np.concatenate(pair) for pair in zip(self._rows, other._rows, strict=True)))

    def encode(self) -> bytes:
        """Counts, means and squares, float64, little endian."""
        return np.stack(self._rows).astype("<f8").tobytes()

    @property
    def _rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        return self.counts, self.means, self.squares


def pooled(parts: Sequence[Moments]) -> Moments:
    """The moments of all values together (Chan, Golub and LeVeque 1983, for many parts at once); there is a part.

    The sums are rounded once, at their end, so their order does not matter.
    """
    counts = _sums([part.counts for part in parts])
    means = _sums([part.counts * part.means for part in parts]) / np.maximum(counts, 1)
    squares = _sums([part.squares for part in parts] + [part.counts * np.square(part.means - means) for part in parts])
    return Moments(counts, means, squares)


def decode_moments(data: bytes, columns: int) -> Moments:
    """Read `Moments.encode`.

    Raises:
        ProtocolError: `WRONG_SHAPE` or `NOT_FINITE`.
    """
    size = ROWS * columns * 8
    if len(data) != size:
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"statistics of {len(data)} bytes; {columns} columns take {size}, three float64 each"
        )
    rows = np.frombuffer(data, "<f8").reshape(ROWS, columns).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ProtocolError(Reason.NOT_FINITE, "statistics hold NaN or infinity")
    return Moments(*rows)


def _sums(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array([fsum(column) for column in np.transpose(rows)])
