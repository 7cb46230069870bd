"""The graphs that don't train: evaluation and prediction, from the flat weight vector."""

from collections.abc import Sequence

import torch
from onnx import GraphProto, TensorProto, helper
from torch import nn

from fleet_protocol.bundle import InputSchema, Parameter
from workbench.export.flat_weights import parameter_inputs, split_weights
from workbench.export.gradients import GraphFunction, evaluation, prediction
from workbench.export.losses import RowLoss
from workbench.export.onnx_conversion import convert
from workbench.export.tracing import BATCH, GraphInput

PREFIX = "parameters."


def evaluation_graph(
    module: nn.Module, row_loss: RowLoss, sample: InputSchema, parameters: Sequence[Parameter]
) -> GraphProto:
    """The graph of `evaluate.onnx`.

    Inputs: `weights` f32[P], `inputs` f32[N, *shape], `labels` i64[N]. Outputs: `losses` f32[N], `correct` f32[N],
    1 where the highest score is the label's.
    """
    data = [GraphInput("inputs", (BATCH, *sample.shape)), GraphInput("labels", (BATCH,), torch.int64)]
    return _graph("evaluate", evaluation(module, row_loss), parameters, data, ["losses", "correct"])


def prediction_graph(module: nn.Module, sample: InputSchema, parameters: Sequence[Parameter]) -> GraphProto:
    """The graph of `predict.onnx`: `weights` f32[P], `inputs` f32[N, *shape] to `scores` f32[N, classes]."""
    data = [GraphInput("inputs", (BATCH, *sample.shape))]
    return _graph("predict", prediction(module), parameters, data, ["scores"])


def _graph(
    name: str,
    function: GraphFunction,
    parameters: Sequence[Parameter],
    data: Sequence[GraphInput],
    outputs: Sequence[str],
) -> GraphProto:
    converted = convert(function, [*parameter_inputs(parameters, PREFIX), *data], outputs)
    total = sum(parameter.size for parameter in parameters)
    weights = helper.make_tensor_value_info("weights", TensorProto.FLOAT, [total])
    graph = helper.make_graph(
        nodes=[],
        name=name,
        inputs=[weights, *converted.input[len(parameters) :]],
        outputs=converted.output,
        initializer=converted.initializer,
    )
    split_weights(graph, parameters, "weights", PREFIX)
    graph.node.extend(converted.node)
    return graph
