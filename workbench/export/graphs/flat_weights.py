"""The flat weight vector inside a graph: cut into tensors, and joined again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fleet_protocol.parameter import Parameter


def split(flat: Tensor, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
    """Name to tensor, each in its shape, of `flat` f32[P]."""
    pieces = torch.split_with_sizes(flat, [parameter.size for parameter in parameters])
    return {parameter.name: piece.reshape(parameter.shape) for parameter, piece in zip(parameters, pieces, strict=True)}


def join(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other, each C-order raveled, as f32[P]."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@dataclass(frozen=True, slots=True)
class Cut:
    """Some tensors of a flat vector, by their `names` among its `parameters`."""

    parameters: Sequence[Parameter]
    names: frozenset[str]

    def out(self, flat: Tensor) -> Tensor:
        """Those tensors of `flat` f32[P], joined."""
        return join([tensor for name, tensor in split(flat, self.parameters).items() if name in self.names])

    def into(self, flat: Tensor, some: Tensor) -> Tensor:
        """`flat` f32[P] with `some`, as `out` gives them, in their place."""
        own = split(some, [parameter for parameter in self.parameters if parameter.name in self.names])
        return join([own.get(name, tensor) for name, tensor in split(flat, self.parameters).items()])
