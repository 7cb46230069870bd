"""The graphs that don't train: evaluation and prediction, from the flat weight vector."""

from dataclasses import replace

from onnx import GraphProto

from workbench.export.gradients import evaluation, prediction
from workbench.export.onnx_conversion import convert
from workbench.export.recipe import Recipe
from workbench.export.scaled_graphs import model_side, scale_values, unscale_scores
from workbench.export.tracing import BATCH, GraphInput
from workbench.export.training_graph import step_inputs


def evaluation_graph(recipe: Recipe) -> GraphProto:
    """The graph of `evaluate.onnx`.

    Inputs: `weights` f32[P], `inputs` f32[N, *shape], `labels` as in training. Outputs: `losses` f32[N], and
    `correct` f32[N] where labels are classes: 1 where the highest score is the label's, or the share of right
    answers if a sample has several labels. Losses are of scaled targets, as in training.
    """
    labels = [entry for entry in step_inputs(recipe) if entry.name == "labels"]
    inputs = [*_inputs(recipe), *labels]
    outputs = ["losses", "correct"] if recipe.task.label.classes else ["losses"]
    names = [entry.name for entry in inputs]
    graph = convert(evaluation(recipe, names), _on_model_side(recipe, inputs), outputs)
    scale_values(graph, recipe, names)
    graph.name = "evaluate"
    return graph


def prediction_graph(recipe: Recipe) -> GraphProto:
    """The graph of `predict.onnx`: `weights` f32[P], `inputs` f32[N, *shape] to `scores` f32[N, ...]."""
    graph = convert(prediction(recipe), _on_model_side(recipe, _inputs(recipe)), [model_side(recipe, "scores")])
    scale_values(graph, recipe, ["inputs"])
    unscale_scores(graph, recipe)
    graph.name = "predict"
    return graph


def _on_model_side(recipe: Recipe, inputs: list[GraphInput]) -> list[GraphInput]:
    return [replace(entry, name=model_side(recipe, entry.name)) for entry in inputs]


def _inputs(recipe: Recipe) -> list[GraphInput]:
    total = sum(parameter.size for parameter in recipe.parameters)
    return [GraphInput("weights", (total,)), GraphInput("inputs", (BATCH, *recipe.task.input.shape))]
