"""A sparse vector, and the selection of the entries that are worth sending."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatVector = NDArray[np.float32]
IndexVector = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SparseUpdate:
    """Some entries of a flat vector: `indices` int64, strictly ascending; `values` float32, of the same length."""

    indices: IndexVector
    values: FloatVector

    def add_to(self, vector: FloatVector, scale: float = 1.0) -> None:
        """Add `scale` times this update to `vector` in place."""
        vector[self.indices] += np.float32(scale) * self.values

    def norm(self) -> float:
        """Euclidean norm, accumulated in float64."""
        return float(np.linalg.norm(self.values.astype(np.float64)))


def select_top_k(vector: FloatVector, keep_fraction: float) -> IndexVector:
    """Indices of the entries largest in magnitude, ascending: `keep_fraction` of all, at least one."""
    kept = max(1, round(keep_fraction * vector.size))
    if kept >= vector.size:
        return np.arange(vector.size, dtype=np.int64)
    top = np.argpartition(np.abs(vector), vector.size - kept)[vector.size - kept :]
    return np.sort(top).astype(np.int64)
