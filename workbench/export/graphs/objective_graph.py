"""The forward graph that onnxruntime-training differentiates by itself: parameters and a mini-batch to the objective.

Weight decay of plain SGD, FedProx's proximal term and the correction of drift are added as penalties, whose gradients
they are. What else an
optimiser does is that engine's own.
"""

from collections.abc import Sequence

import torch
from onnx import GraphProto, numpy_helper
from torch import Tensor

from bundle_runtime.log_priors import BALANCE, LOG_PRIOR
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import UNSCALED
from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.graphs.flat_weights import join
from workbench.export.graphs.gradients import GraphFunction, losses_and_outputs
from workbench.export.graphs.training_graph import CORRECTION, correction_input, is_read, label_input
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.heads import Batch
from workbench.export.recipe.recipe import Recipe

OBJECTIVE, LOSS = "objective", "loss"
SUPPORTED_OPTIMISERS = ("sgd", "adamw")


def objective_graph(recipe: Recipe) -> GraphProto:
    """Its inputs, each only where the task makes use of it: `inputs` f32[B, *shape], `labels` i64[B] or f32[B, C],
    `row_weights` f32[B] (adding up to 1), `class_counts` f32[C] of all labels, `seed` i64[], `anchor` f32[P] with
    `proximal` f32[], and `correction` f32[P]. Parameters are initializers by name. Outputs: `loss` f32[], the mean over
    the real rows; before it `objective` f32[], what is minimised, where that is more than the loss.

    Raises:
        ConfigurationError: naming what that engine can't do.
    """
    _check_supported(recipe)
    inputs = _inputs(recipe)
    parameters = [GraphInput(parameter.name, tuple(parameter.shape)) for parameter in recipe.parameters]
    outputs = [OBJECTIVE, LOSS] if _penalised(recipe) else [LOSS]
    names = [entry.name for entry in inputs]
    graph = convert(_objective(recipe, names), [*parameters, *inputs], outputs)
    graph.name = "objective"
    taken = [value for value in graph.input if value.name in names and (value.name != "seed" or is_read(graph, "seed"))]
    del graph.input[:]
    graph.input.extend(taken)
    tensors = recipe.tensors
    graph.initializer.extend(numpy_helper.from_array(tensors[entry.name].numpy(), entry.name) for entry in parameters)
    return graph


def _objective(recipe: Recipe, names: Sequence[str]) -> GraphFunction:
    training = recipe.task.training
    count = len(recipe.parameters)

    def objective(*tensors: Tensor) -> tuple[Tensor, ...]:
        weights = {entry.name: tensor for entry, tensor in zip(recipe.parameters, tensors[:count], strict=True)}
        named = dict(zip(names, tensors[count:], strict=True))
        priors = {}
        if "class_counts" in named:
            smoothed = named["class_counts"] + 1
            priors[LOG_PRIOR] = BALANCE * torch.log(smoothed / smoothed.sum())
        real = (named["row_weights"] > 0).to(torch.float32)
        batch = Batch(named["inputs"], named.get("labels"), real, priors)
        context = LayerContext(named["row_weights"], named.get("seed"))
        rows = losses_and_outputs(recipe, weights, batch, context)[0]
        loss = (rows * named["row_weights"]).sum()
        if not _penalised(recipe):
            return (loss,)
        flat = join(list(weights.values()))
        penalty = torch.zeros(())
        if "proximal" in named:
            penalty = penalty + named["proximal"] / 2 * ((flat - named["anchor"]) ** 2).sum()
        if CORRECTION in named:
            penalty = penalty + (named[CORRECTION] * flat).sum()
        if training.optimiser == "sgd" and training.weight_decay:
            penalty = penalty + training.weight_decay / 2 * (flat * flat).sum()
        return loss + penalty, loss

    return objective


def _inputs(recipe: Recipe) -> list[GraphInput]:
    inputs = [GraphInput("inputs", (BATCH, *recipe.task.input.shape)), *label_input(recipe, BATCH)]
    inputs.append(GraphInput("row_weights", (BATCH,)))
    if recipe.objective.heads[0].log_prior:
        inputs.append(GraphInput("class_counts", (recipe.task.label.classes,)))
    inputs.append(GraphInput("seed", (), torch.int64))
    if recipe.task.training.has_proximal:
        total = sum(parameter.size for parameter in recipe.parameters)
        inputs += [GraphInput("anchor", (total,)), GraphInput("proximal", ())]
    return inputs + correction_input(recipe)


def _penalised(recipe: Recipe) -> bool:
    training = recipe.task.training
    corrected = training.correction != "off"
    return bool(training.has_proximal or corrected or (training.weight_decay and training.optimiser == "sgd"))


def _check_supported(recipe: Recipe) -> None:
    training = recipe.task.training
    path = recipe.folder
    if training.optimiser not in SUPPORTED_OPTIMISERS:
        raise ConfigurationError(
            f"{path}: engine ort-training has no optimiser {training.optimiser!r}; choose one of"
            f" {', '.join(SUPPORTED_OPTIMISERS)}, or export without --ort-training"
        )
    if training.optimiser == "sgd" and training.weight_decay and training.gradient_clip:
        raise ConfigurationError(
            f"{path}: engine ort-training would clip the weight decay of sgd too, which the default engine does not;"
            " set one of weight_decay and gradient_clip to 0, or export without --ort-training"
        )
    if any(head.log_prior for head in recipe.objective.heads) and not recipe.task.label.is_index:
        raise ConfigurationError(
            f"{path}: engine ort-training can't balance the classes of positions or of one head among several; write"
            " loss = 'cross_entropy', or export without --ort-training"
        )
    if recipe.scaling != UNSCALED:
        raise ConfigurationError(
            f"{path}: engine ort-training can't scale inputs or targets; write [scaling] inputs = 'off' and targets ="
            " 'off' in task.toml, or export without --ort-training"
        )
    if recipe.task.parts:
        raise ConfigurationError(
            f"{path}: engine ort-training can't train parts in turn; export without --ort-training"
        )
    if training.per_sample_gradients:
        raise ConfigurationError(
            f"{path}: engine ort-training can't clip per-sample gradients; export without --ort-training"
        )
    if recipe.moving_buffers:
        raise ConfigurationError(
            f"{path}: engine ort-training can't move the buffer {min(recipe.moving_buffers)!r}; write batch_norm ="
            " 'frozen' or take GroupNorm instead of batch normalisation, and weight_norm instead of spectral_norm, or"
            " export without --ort-training"
        )
    if training.correction != "off" and training.gradient_clip:
        raise ConfigurationError(
            f"{path}: engine ort-training would clip the correction too, which the default engine does not; leave one"
            " of correction and gradient_clip out, or export without --ort-training"
        )
