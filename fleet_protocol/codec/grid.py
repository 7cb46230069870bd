"""Weights on a grid, where any two versions are integers apart: what a task that rounds its versions publishes. Pure.

A tensor's step is a power of two below the root mean square of its values in version 0, so a weight is an integer times
its step, exactly, in float32. What rounding leaves out stays where the weights are made and doesn't add up: published
weights are never further from the true ones than half a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector, IndexVector, Shapes, TensorLayout

VECTOR_BITS = 4
"""Biases, scales and running means get steps finer by this many bits: they are few, and count for more."""

MIN_EXPONENT, MAX_EXPONENT = -60, 20
"""Of two, for a step. Weights of a usable model start far within."""

_LARGEST_INTEGER = 2**24
"""Every integer up to it is a float32."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Steps as powers of two: `exponents` int8, one for each tensor, between MIN_EXPONENT and MAX_EXPONENT."""

    exponents: NDArray[np.int8]

    @classmethod
    def below(cls, first: FloatVector, shapes: Shapes, bits: int) -> "Grid":
        """The grid of a task whose version 0 is `first`: `bits` finer than each tensor's magnitude.

        A tensor that starts at zero gets the step of the whole vector.
        """
        layout = TensorLayout.of(shapes)
        tensors = np.split(first.astype(np.float64), layout.starts[1:-1])
        overall = _root_mean_square(first) or 1.0
        magnitudes = [_root_mean_square(tensor) or overall for tensor in tensors]
        finer = np.array([bits + (VECTOR_BITS if len(shape) < 2 else 0) for shape in shapes])
        exponents = np.floor(np.log2(magnitudes)) - finer
        return cls(np.clip(exponents, MIN_EXPONENT, MAX_EXPONENT).astype(np.int8))

    def steps(self, sizes: Sequence[int] | IndexVector) -> NDArray[np.float64]:
        """The step of every entry of the flat vector, float64; `sizes` are the tensors' lengths."""
        return np.repeat(np.exp2(self.exponents.astype(np.float64)), sizes)

    def integers(self, weights: FloatVector, sizes: IndexVector) -> NDArray[np.float64]:
        """The nearest point of the grid for each weight, as whole float64 numbers."""
        return np.rint(weights.astype(np.float64) / self.steps(sizes))

    def rounded(self, weights: FloatVector, shapes: Shapes) -> FloatVector:
        """The nearest weights on the grid; `weights` themselves where one has grown beyond the grid's 24 bits."""
        sizes = np.diff(TensorLayout.of(shapes).starts)
        integers = self.integers(weights, sizes)
        return weights if (np.abs(integers) > _LARGEST_INTEGER).any() else self.weights(integers, sizes)

    def weights(self, integers: NDArray[np.float64], sizes: IndexVector) -> FloatVector:
        """The float32 weights at some points of the grid; a zero is a positive one."""
        with np.errstate(over="ignore"):
            return ((integers + 0.0) * self.steps(sizes)).astype(np.float32)


def _root_mean_square(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
