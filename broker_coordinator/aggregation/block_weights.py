"""What an update weighs where it holds some blocks of a task's `split` and not others. Pure.

    mean[b] = sum(weight[b] * delta[b]) / sum(weight[b])        of each block b, over those who held it

A number as a weight is that of all blocks, so both kinds of weight add: docs/decisions/averaged-over-holders.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import IndexVector
from fleet_protocol.parameter import Parameter

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BlockLayout:
    """Which block each entry of the flat weight vector is in: `blocks` of each tensor, and the entry that it `starts`
    with, int64; `starts` has the vector's length behind them.
    """

    blocks: IndexVector
    starts: IndexVector

    @staticmethod
    def of(parameters: Sequence[Parameter]) -> "BlockLayout":
        """That of a task's parameters; the same object for the same ones."""
        return _layout(tuple((parameter.block, parameter.size) for parameter in parameters))

    def spread(self, of_blocks: Vector) -> Vector:
        """A number for each block, written at every entry: float64, as long as the flat weight vector."""
        return np.repeat(of_blocks[self.blocks], np.diff(self.starts))

    def at(self, of_blocks: Vector, indices: IndexVector) -> Vector:
        """The same at some entries."""
        found: Vector = of_blocks[self.blocks[np.searchsorted(self.starts, indices, "right") - 1]]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class BlockWeights:
    """A weight for each block, float64."""

    of_blocks: Vector
    layout: BlockLayout

    def __add__(self, other: "Weight") -> "BlockWeights":
        more = other.of_blocks if isinstance(other, BlockWeights) else other
        return BlockWeights(self.of_blocks + more, self.layout)

    __radd__ = __add__

    def __mul__(self, factor: float) -> "BlockWeights":
        return BlockWeights(self.of_blocks * factor, self.layout)


Weight = float | BlockWeights


def at(weight: Weight, indices: IndexVector) -> float | Vector:
    """What the entries at `indices` weigh."""
    return weight.layout.at(weight.of_blocks, indices) if isinstance(weight, BlockWeights) else weight


def divided(total: Vector, weight: Weight) -> Vector:
    """A sum over its weight, zero where nothing weighs anything; `total` may be the end of the flat vector alone."""
    if not isinstance(weight, BlockWeights):
        return total / weight if weight > 0 else np.zeros_like(total)
    weights = weight.layout.spread(weight.of_blocks)[-total.size :]
    return np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)


def largest(one: Weight, other: Weight) -> Weight:
    """The larger weight, of each block."""
    if isinstance(one, BlockWeights) or isinstance(other, BlockWeights):
        ours, others, layout = _of_blocks(one, other)
        return BlockWeights(np.maximum(ours, others), layout)
    return max(one, other)


def where_any(weight: Weight, otherwise: Weight) -> Weight:
    """The weight, and another one of the blocks that weigh nothing."""
    if isinstance(weight, BlockWeights) or isinstance(otherwise, BlockWeights):
        ours, others, layout = _of_blocks(weight, otherwise)
        return BlockWeights(np.where(ours > 0, ours, others), layout)
    return weight or otherwise


def nobodys(weight: Weight) -> NDArray[np.bool_] | None:
    """The entries of blocks that weigh nothing, as a mask over the flat weight vector; None where there are none."""
    if not isinstance(weight, BlockWeights) or (weight.of_blocks > 0).all():
        return None
    mask: NDArray[np.bool_] = weight.layout.spread(weight.of_blocks) == 0
    return mask


def _of_blocks(one: Weight, other: Weight) -> tuple[Vector, Vector, BlockLayout]:
    """Both written out for each block; one of them at least is of blocks."""
    layout = next(each.layout for each in (one, other) if isinstance(each, BlockWeights))
    blocks = next(each.of_blocks.size for each in (one, other) if isinstance(each, BlockWeights))
    nothing = BlockWeights(np.zeros(blocks), layout)
    return (nothing + one).of_blocks, (nothing + other).of_blocks, layout


@lru_cache(maxsize=64)
def _layout(tensors: tuple[tuple[int, int], ...]) -> BlockLayout:
    sizes = [size for _, size in tensors]
    return BlockLayout(np.array([block for block, _ in tensors]), np.cumsum([0, *sizes]))
