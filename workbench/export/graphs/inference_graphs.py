"""The graphs that don't train: evaluation, prediction and drawing, from the flat weight vector."""

from dataclasses import replace

import torch
from onnx import GraphProto

from fleet_protocol.drawing_plan import DrawingPlan
from fleet_protocol.sample_schema import qualified
from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.graphs.gradients import drawing, evaluation, evaluation_outputs, prediction
from workbench.export.graphs.scaled_graphs import model_side, scale_values, unscale_scores
from workbench.export.graphs.training_graph import label_input
from workbench.export.recipe.recipe import Recipe


def evaluation_graph(recipe: Recipe) -> GraphProto:
    """The graph of `evaluate.onnx`.

    Inputs: `weights` f32[P], `inputs` f32[N, *shape], `labels` as in training. Outputs: those of `evaluation_outputs`.
    Losses are of scaled targets, as in training.
    """
    inputs = [*_inputs(recipe), *label_input(recipe, BATCH)]
    outputs = evaluation_outputs(recipe)
    names = [entry.name for entry in inputs]
    graph = convert(evaluation(recipe, names), _on_model_side(recipe, inputs), outputs)
    scale_values(graph, recipe, names)
    graph.name = "evaluate"
    return graph


def prediction_graph(recipe: Recipe) -> GraphProto:
    """The graph of `predict.onnx`: `weights` f32[P], `inputs` f32[N, *shape] to `scores` f32[N, ...]; of several heads
    to `scores.NAME` each.
    """
    outputs = [model_side(recipe, qualified("scores", head.name)) for head in recipe.objective.heads]
    graph = convert(prediction(recipe), _on_model_side(recipe, _inputs(recipe)), outputs)
    scale_values(graph, recipe, ["inputs"])
    unscale_scores(graph, recipe)
    graph.name = "predict"
    return graph


def drawing_graph(recipe: Recipe, plan: DrawingPlan) -> GraphProto:
    """The graph of `draw.onnx`.

    Inputs: `weights` f32[P], `latent` f32[N, latent] and, where pictures have classes, `labels` i64[N]. Output:
    `pictures` f32[N, *shape].
    """
    weights, _ = _inputs(recipe)
    given = [weights, GraphInput("latent", (BATCH, plan.latent))]
    if plan.label is not None:
        given.append(GraphInput("labels", (BATCH,), torch.int64))
    graph = convert(drawing(recipe, plan), given, ["pictures"])
    graph.name = "draw"
    return graph


def _on_model_side(recipe: Recipe, inputs: list[GraphInput]) -> list[GraphInput]:
    return [replace(entry, name=model_side(recipe, entry.name)) for entry in inputs]


def _inputs(recipe: Recipe) -> list[GraphInput]:
    total = sum(parameter.size for parameter in recipe.parameters)
    return [GraphInput("weights", (total,)), GraphInput("inputs", (BATCH, *recipe.task.input.shape))]
