"""Pictures that a trained generator draws."""

import numpy as np
import torch
from torch import nn

from benchmarks.split_gans.scenario import Classes, Labelled, Pictures
from fleet_protocol.codec.sparse import FloatVector
from workbench.export.recipe.recipe import Recipe


def load(recipe: Recipe, flat: FloatVector) -> None:
    """Give the recipe's module the weights f32[P]."""
    values = dict(recipe.module.named_parameters()) | dict(recipe.module.named_buffers())
    start = 0
    with torch.no_grad():
        for parameter in recipe.parameters:
            end = start + int(np.prod(parameter.shape))
            values[parameter.name].copy_(torch.from_numpy(flat[start:end]).reshape(parameter.shape))
            start = end


def draw(recipe: Recipe, flat: FloatVector, classes: Classes, offset: int, seed: int) -> Labelled:
    """A picture of each class i64[N], of which the generator knows each by its number plus `offset`."""
    load(recipe, flat)
    recipe.module.eval()
    generator = recipe.module.get_submodule("generator")
    return Labelled(_pictures(generator, classes + offset, seed), classes)


def _pictures(generator: nn.Module, classes: Classes, seed: int) -> Pictures:
    latent_size = int(generator.get_submodule("block1").get_parameter("linear.weight").shape[1])
    embedded = int(generator.get_submodule("block1").get_parameter("embedding.weight").shape[1])
    latent = torch.randn(len(classes), latent_size - embedded, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        drawn = generator(latent, torch.from_numpy(classes))
    return np.asarray(drawn.reshape(len(classes), -1).numpy(), np.float32)
