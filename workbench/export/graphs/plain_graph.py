"""From what a compressed model is made of to the model: the graph of `plain.onnx`, which devices do not fetch."""

import torch
from onnx import GraphProto
from torch import Tensor, nn
from torch.func import functional_call

from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import GraphInput
from workbench.export.graphs.flat_weights import split
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.trainable import PARAMETRISED


class _Tensors(nn.Module):
    """Gives tensors of a module by their names, computed where they are parametrised."""

    def __init__(self, whole: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.whole = whole
        self._names = names

    def forward(self) -> tuple[Tensor, ...]:
        places = (name.rpartition(".") for name in self._names)
        return tuple(getattr(self.whole.get_submodule(layer), last) for layer, _, last in places)


def plain_graph(recipe: Recipe) -> GraphProto:
    """`weights` f32[P] to each tensor of the model that they say something of, under its name in `build()`'s module."""
    names = list(dict.fromkeys(plain_name(parameter.name) for parameter in recipe.parameters))
    tensors = _Tensors(recipe.module, names)

    def plain(weights: Tensor) -> tuple[Tensor, ...]:
        given = {f"whole.{name}": value for name, value in split(weights, recipe.parameters).items()}
        return tuple(torch.clone(value) for value in functional_call(tensors, given, ()))

    total = sum(parameter.size for parameter in recipe.parameters)
    graph = convert(plain, [GraphInput("weights", (total,))], names)
    graph.name = "plain"
    return graph


def plain_name(name: str) -> str:
    """That of the tensor which this one is a part of, or its own."""
    parametrised = PARAMETRISED.fullmatch(name)
    return parametrised["layer"] + parametrised["tensor"] if parametrised else name
