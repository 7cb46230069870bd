"""The parameters of a module that can be compressed: matrices and kernels that a layer reads by their name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

FEWEST_AXES = 2


@dataclass(frozen=True, slots=True)
class Matrix:
    """A parameter, and the layer that has it. Behind its first axis, which counts rows, all others are columns."""

    name: str
    layer: nn.Module
    attribute: str
    value: Tensor

    @property
    def rows(self) -> int:
        """Of the matrix: a layer's outputs."""
        return int(self.value.shape[0])

    @property
    def columns(self) -> int:
        """Of the matrix: a layer's inputs, times the places of a kernel."""
        return self.value.numel() // self.rows

    def is_made_of(self, numbers: nn.Module) -> None:
        """Let the layer compute this parameter from what `numbers.right_inverse` gives, with `numbers.forward`."""
        parametrize.register_parametrization(self.layer, self.attribute, numbers, unsafe=True)


def matrices(module: nn.Module, trains: Callable[[str], bool]) -> dict[str, Matrix]:
    """By name, those that train.

    Recurrent layers keep their weights in a list of their own, and what is parametrised already is no plain tensor.
    """
    found = {}
    for place, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, nn.RNNBase | parametrize.ParametrizationList):
            continue
        for attribute, value in layer.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{place}.{attribute}" if place else attribute
            if value.dim() >= FEWEST_AXES and trains(name):
                found[name] = Matrix(name, layer, attribute, value.detach().clone())
    return found
