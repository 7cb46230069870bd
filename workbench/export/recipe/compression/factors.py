"""FedPara (Hyeon-Woo et al. 2022): the entrywise product of two low-rank matrices, whose rank is up to the square.

A kernel [out, in, ...] is made of a small one [rank, rank, ...] times a thin matrix on either side, twice (proposition
3), a matrix of thin matrices alone (proposition 1).
"""

import math

import torch
from torch import Tensor, nn

from workbench.export.recipe.compression.matrices import FEWEST_AXES, Matrix
from workbench.export.recipe.compression.settings import FactorSettings


class Factors(nn.Module):
    """What a matrix or kernel is made of."""

    def __init__(self, matrix: Matrix, settings: FactorSettings, generator: torch.Generator) -> None:
        """For one matrix, drawn from normal distributions such that its entries have the mean square that they had."""
        super().__init__()
        self._shape = matrix.value.shape
        drawn = [torch.randn(shape, generator=generator) for shape in _shapes(matrix, settings.rank)]
        mean_square = float(self.forward(*drawn).square().mean())
        wanted = float(matrix.value.square().mean())
        scale = (wanted / mean_square) ** (1 / (2 * len(drawn)))
        self._first = tuple(scale * each for each in drawn)

    def forward(self, *factors: Tensor) -> Tensor:
        """The matrix or kernel, of the factors in the order of their shapes."""
        half = len(factors) // 2
        return (_product(*factors[:half]) * _product(*factors[half:])).reshape(self._shape)

    def right_inverse(self, _value: Tensor) -> tuple[Tensor, ...]:
        """The factors to begin with."""
        return self._first


def factor_size(matrix: Matrix, rank: int) -> int:
    """Numbers in all factors."""
    return sum(math.prod(shape) for shape in _shapes(matrix, rank))


def _shapes(matrix: Matrix, rank: int) -> list[list[int]]:
    rows, inputs, *places = matrix.value.shape
    core = [[rank, rank * math.prod(places)]] if len(matrix.value.shape) > FEWEST_AXES else []
    return 2 * [[rows, rank], [inputs, rank], *core]


def _product(outwards: Tensor, inwards: Tensor, core: Tensor | None = None) -> Tensor:
    """f32[rows, inputs], or f32[rows, inputs, places] with a `core` f32[rank, rank * places]."""
    if core is None:
        return outwards @ inwards.T
    rank = outwards.shape[1]
    spread = (outwards @ core).reshape(outwards.shape[0], rank, -1)
    both = inwards @ spread.transpose(0, 1).reshape(rank, -1)
    return both.reshape(inwards.shape[0], outwards.shape[0], -1).transpose(0, 1)
