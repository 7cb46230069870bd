"""Pictures that a trained generator draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.split_gans.method import Method
from benchmarks.split_gans.scenario import CLASSES, Classes, Labelled, Pictures, Scenario, joined
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


@dataclass(frozen=True, slots=True)
class Painter:
    """Draws with what participants of a method have learned."""

    recipe: Recipe
    method: Method
    scenario: Scenario
    seed: int

    def pictures(self, weights: Mapping[str, FloatVector], place: int, count: int) -> Labelled:
        """About so many of the domain at this place: even parts by each of its participants, of every class alike."""
        domain = self.scenario.domains[place]
        drawing = [each for each in self.method.participants(self.scenario) if each.draws(domain)]
        classes = np.arange(count // len(drawing)) % CLASSES
        offset = self.method.class_offset(place)
        return joined(
            [
                draw(self.recipe, weights[each.name], classes, offset, self.seed * 1000 + number)
                for number, each in enumerate(drawing)
            ]
        )


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
