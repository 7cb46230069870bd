"""LoRA (Hu et al. 2021): a frozen matrix plus the product of two thin ones that train."""

import math

import torch
from torch import Tensor, nn

from workbench.export.recipe.compression.matrices import Matrix
from workbench.export.recipe.compression.settings import AdapterSettings


class Adapter(nn.Module):
    """`frozen + scale * B @ A` (equation 3). B begins as zeros, so the model begins as it was."""

    frozen: Tensor

    def __init__(self, matrix: Matrix, settings: AdapterSettings, generator: torch.Generator) -> None:
        """For one matrix; A is drawn as a linear layer's weights are, uniform within 1 / sqrt(columns)."""
        super().__init__()
        self.register_buffer("frozen", matrix.value)
        self._scale = 1.0 if settings.alpha is None else settings.alpha / settings.rank
        bound = 1 / math.sqrt(matrix.columns)
        inwards = (2 * torch.rand(settings.rank, matrix.columns, generator=generator) - 1) * bound
        self._first = (torch.zeros(matrix.rows, settings.rank), inwards)

    def forward(self, outwards: Tensor, inwards: Tensor) -> Tensor:
        """The matrix, of B f32[rows, rank] and A f32[rank, columns]."""
        product = outwards @ inwards
        return self.frozen + (product if self._scale == 1 else self._scale * product).reshape(self.frozen.shape)

    def right_inverse(self, _value: Tensor) -> tuple[Tensor, ...]:
        """B and A to begin with."""
        return self._first


def adapter_size(matrix: Matrix, rank: int) -> int:
    """Numbers in an adapter."""
    return rank * (matrix.rows + matrix.columns)
