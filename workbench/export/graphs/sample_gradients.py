"""The graph that sample-level privacy trains with: each sample's gradient by itself, and nothing else.

Clipping, noise and the optimiser's step come after it, on the device, where the clip and the sum can be exact
(docs/decisions/private-steps-are-whole-numbers.md).
"""

from dataclasses import replace

import torch
from onnx import GraphProto

from fleet_protocol.errors import ConfigurationError
from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import GraphInput
from workbench.export.graphs.gradients import sample_gradients
from workbench.export.graphs.scaled_graphs import model_side, scale_values
from workbench.export.graphs.training_graph import is_read, label_input
from workbench.export.recipe.recipe import Recipe


def sample_gradients_graph(recipe: Recipe) -> GraphProto:
    """The graph of `sample_gradients.onnx`.

    Inputs: `weights` f32[P], `inputs` f32[B, *shape], `labels` as in training, `seed` i64[] only if the model draws
    random numbers. Output: `gradients` f32[B, P]. B is the plan's `batch_size`, as torch's rules for `vmap` fix it.

    Raises:
        ConfigurationError: the task has a loss or layers that make one sample's gradient depend on others.
    """
    _check(recipe)
    inputs = gradient_inputs(recipe)
    names = [entry.name for entry in inputs]
    on_model_side = [replace(entry, name=model_side(recipe, entry.name)) for entry in inputs]
    graph = convert(sample_gradients(recipe, names), on_model_side, ["gradients"])
    if not is_read(graph, "seed"):
        kept = [entry for entry in graph.input if entry.name != "seed"]
        del graph.input[:]
        graph.input.extend(kept)
    scale_values(graph, recipe, names)
    graph.name = "sample_gradients"
    return graph


def gradient_inputs(recipe: Recipe) -> list[GraphInput]:
    """The values that the gradients are a function of."""
    rows = recipe.task.training.batch_size
    total = sum(parameter.size for parameter in recipe.parameters)
    inputs = [GraphInput("weights", (total,)), GraphInput("inputs", (rows, *recipe.task.input.shape))]
    return [*inputs, *label_input(recipe, rows), GraphInput("seed", (), torch.int64)]


def _check(recipe: Recipe) -> None:
    if any(head.log_prior for head in recipe.objective.heads):
        raise ConfigurationError(
            f"{recipe.folder}: [privacy.samples] needs a loss of each sample by itself, and balanced_cross_entropy"
            " counts all labels of a device; write loss = 'cross_entropy'"
        )
    if recipe.moving_buffers:
        raise ConfigurationError(
            f"{recipe.folder}: [privacy.samples] needs layers that treat each sample by itself, and training moves the"
            f" buffer {min(recipe.moving_buffers)!r} by all; take GroupNorm, or write batch_norm = 'frozen'"
        )
    if recipe.task.parts:
        raise ConfigurationError(
            f"{recipe.folder}: [privacy.samples] goes with one loss, not with [parts]; leave one of them out"
        )
