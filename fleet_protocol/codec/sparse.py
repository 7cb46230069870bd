"""A sparse vector, and how the flat vector that it lies in is divided into tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatVector = NDArray[np.float32]
IndexVector = NDArray[np.int64]
Shapes = Sequence[Sequence[int]]


class SparseUpdate(msgspec.Struct, frozen=True, gc=False):
    """Some entries of a flat vector: `indices` int64, strictly ascending; `values` float32, of the same length."""

    indices: IndexVector
    values: FloatVector

    def is_whole(self, size: int) -> bool:
        """Whether it has every entry of a vector of this size: its values are then that vector."""
        return self.indices.size == size

    def add_to(self, vector: FloatVector, scale: float = 1.0) -> None:
        """Add `scale` times this update to `vector` in place."""
        if self.is_whole(vector.size):
            vector += np.float32(scale) * self.values
        else:
            vector[self.indices] += np.float32(scale) * self.values

    def norm(self) -> float:
        """Euclidean norm, accumulated in float64."""
        values = self.values.astype(np.float64)
        return math.sqrt(float(values @ values))


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Tensor t is `[starts[t], starts[t + 1])` of the flat vector: `rows[t]` rows of `columns[t]` entries, row by row.

    The rows of a tensor are its first axis; a vector or scalar is one row. All int64. `has_rows`: scanning by column is
    another order than by row.
    """

    starts: IndexVector
    rows: IndexVector
    columns: IndexVector
    has_rows: bool

    @staticmethod
    def of(shapes: Shapes) -> "TensorLayout":
        """The layout of tensors of these shapes, one after the other."""
        return _layout(tuple(map(tuple, shapes)))

    @property
    def size(self) -> int:
        """Entries of the flat vector."""
        return int(self.starts[-1])

    def kept_per_tensor(self, indices: IndexVector) -> IndexVector:
        """How many of the ascending `indices` lie in each tensor."""
        cuts = np.searchsorted(indices, self.starts)
        return cuts[1:] - cuts[:-1]


@lru_cache(maxsize=64)
def every_index(size: int) -> IndexVector:
    """All indices of a vector of this size, int64, not to be changed: dense updates have the same ones."""
    indices = np.arange(size, dtype=np.int64)
    indices.flags.writeable = False
    return indices


@lru_cache(maxsize=64)
def _layout(shapes: tuple[tuple[int, ...], ...]) -> TensorLayout:
    sizes = np.array([np.prod(shape, dtype=np.int64) for shape in shapes])
    rows = np.array([shape[0] if len(shape) > 1 else 1 for shape in shapes])
    return TensorLayout(np.concatenate([[0], np.cumsum(sizes)]), rows, sizes // rows, bool((rows > 1).any()))
