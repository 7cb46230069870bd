"""Magnitude pruning with a mask that is fixed at the export (PruneFL's first phase, Jiang et al. 2022).

The mask is a constant of the graphs, so it travels once, with the bundle. A pruned tensor is trained as the vector of
the entries that it has left.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workbench.export.recipe.compression.matrices import Matrix
from workbench.export.recipe.compression.settings import PruningSettings

GAP_TYPES = (torch.uint8, torch.int16, torch.int32)


class Kept(nn.Module):
    """Puts the entries that are left into their places, with zeros between them."""

    gaps: Tensor

    def __init__(self, matrix: Matrix, mask: Tensor) -> None:
        """For one matrix, of which the entries stay where `mask` bool[*shape] is true."""
        super().__init__()
        self._shape = matrix.value.shape
        places = mask.flatten().nonzero().flatten()
        gaps = torch.diff(places, prepend=torch.tensor([0]))
        narrowest = next(each for each in GAP_TYPES if int(gaps.max()) <= torch.iinfo(each).max)
        self.register_buffer("gaps", gaps.to(narrowest))
        self._first = matrix.value.flatten()[places].clone()

    def forward(self, kept: Tensor) -> Tensor:
        """The whole tensor, of its entries that are left, f32[K]."""
        places = torch.cumsum(self.gaps.to(torch.int64), 0)
        return torch.zeros(self._shape.numel()).scatter(0, places, kept).reshape(self._shape)

    def right_inverse(self, _value: Tensor) -> Tensor:
        """The entries to begin with."""
        return self._first


def masks(found: Mapping[str, Matrix], settings: PruningSettings) -> dict[str, Tensor]:
    """By name, bool[*shape]: the entries of largest magnitude, one of each tensor at least."""
    magnitudes = {name: matrix.value.abs() for name, matrix in found.items()}
    if settings.scope == "tensor":
        return {name: _largest(each, settings.keep) for name, each in magnitudes.items()}
    together = _largest(torch.cat([each.flatten() for each in magnitudes.values()]), settings.keep)
    parts = torch.split(together, [each.numel() for each in magnitudes.values()])
    least = {name: each == each.max() for name, each in magnitudes.items()}
    return {name: part.reshape(least[name].shape) | least[name] for name, part in zip(least, parts, strict=True)}


def _largest(magnitudes: Tensor, keep: float) -> Tensor:
    """Of equal ones the first."""
    count = max(1, round(keep * magnitudes.numel()))
    order = magnitudes.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(magnitudes.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.reshape(magnitudes.shape)
