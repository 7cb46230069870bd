"""The flat weight vector inside a graph: cut into tensors, and joined again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fleet_protocol.bundle import Parameter


def split(flat: Tensor, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
    """Name to tensor, each in its shape, of `flat` f32[P]."""
    pieces = torch.split_with_sizes(flat, [parameter.size for parameter in parameters])
    return {parameter.name: piece.reshape(parameter.shape) for parameter, piece in zip(parameters, pieces, strict=True)}


def join(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other, each C-order raveled, as f32[P]."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
