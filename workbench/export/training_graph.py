"""Many training steps as one graph: a `Scan` over mini-batches that carries the parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from onnx import GraphProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from fleet_protocol.bundle import InputSchema, LabelSchema, Parameter
from workbench.export.flat_weights import join_weights, parameter_inputs, split_weights
from workbench.export.gradients import training_step
from workbench.export.losses import BALANCE, Loss
from workbench.export.onnx_conversion import convert
from workbench.export.tracing import BATCH, GraphInput

INITIAL, CARRIED, UPDATED, TRAINED = "initial.", "parameters.", "updated.", "trained."
"""Prefixes of a parameter's name: before the Scan, into and out of one step, after the Scan."""


def training_graph(
    module: nn.Module, loss: Loss, sample: InputSchema, label: LabelSchema, parameters: Sequence[Parameter]
) -> GraphProto:
    """The graph of `train.onnx`.

    Inputs: `weights` f32[P], `inputs` f32[N, *shape], `labels` i64[N], `batches` i64[K, B] (rows of `inputs`),
    `mask` f32[K, B] (1 real, 0 padding), `learning_rate` f32[]. Outputs: `trained_weights` f32[P] after K steps,
    `losses` f32[K], each the mean over the real rows of its mini-batch. A mini-batch of padding alone changes
    nothing and has loss 0. N, K and B are free at run time.
    """
    total = sum(parameter.size for parameter in parameters)
    graph = helper.make_graph(
        nodes=[],
        name="train",
        inputs=[
            _tensor("weights", [total]),
            _tensor("inputs", ["N", *sample.shape]),
            _tensor("labels", ["N"], TensorProto.INT64),
            _tensor("batches", ["K", "B"], TensorProto.INT64),
            _tensor("mask", ["K", "B"]),
            _tensor("learning_rate", []),
        ],
        outputs=[_tensor("trained_weights", [total]), _tensor("losses", ["K"])],
    )
    split_weights(graph, parameters, "weights", INITIAL)
    _weigh_rows(graph)
    if loss.balances_classes:
        _count_classes(graph, label.classes)
    names = [parameter.name for parameter in parameters]
    graph.node.append(helper.make_node("Gather", ["labels", "batches"], ["labels.batched"], axis=0))
    graph.node.append(
        helper.make_node(
            "Scan",
            [*(INITIAL + name for name in names), "batches", "labels.batched", "row_weights"],
            [*(TRAINED + name for name in names), "row_losses"],
            num_scan_inputs=3,
            body=_scan_body(module, loss, sample, label, parameters),
        )
    )
    join_weights(graph, parameters, TRAINED, "trained_weights")
    graph.node.append(helper.make_node("Mul", ["row_losses", "row_weights"], ["row_losses.weighted"]))
    graph.node.append(helper.make_node("ReduceSum", ["row_losses.weighted", "axis.rows"], ["losses"], keepdims=0))
    return graph


def _weigh_rows(graph: GraphProto) -> None:
    """Add `row_weights` f32[K, B]: the mask divided by its sum, so that weighted row losses add up to their mean."""
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis.rows"),
            numpy_helper.from_array(np.array(1, dtype=np.float32), "one.row"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceSum", ["mask", "axis.rows"], ["rows"], keepdims=1),
            helper.make_node("Max", ["rows", "one.row"], ["rows.at_least_one"]),
            helper.make_node("Div", ["mask", "rows.at_least_one"], ["row_weights"]),
        ]
    )


def _count_classes(graph: GraphProto, classes: int) -> None:
    """Add `log_prior` f32[C]: `BALANCE` times the log of the frequencies of all labels, each class counted once more.

    Laplace's rule keeps a class that this device has never seen finite.
    """
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(classes, dtype=np.int64), "classes"),
            numpy_helper.from_array(np.array([0, 1], dtype=np.float32), "off_on"),
            numpy_helper.from_array(np.array([0], dtype=np.int64), "axis.samples"),
            numpy_helper.from_array(np.array(1, dtype=np.float32), "once_more"),
            numpy_helper.from_array(np.array(BALANCE, dtype=np.float32), "balance"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("OneHot", ["labels", "classes", "off_on"], ["labels.one_hot"]),
            helper.make_node("ReduceSum", ["labels.one_hot", "axis.samples"], ["class.counts"], keepdims=0),
            helper.make_node("Add", ["class.counts", "once_more"], ["class.smoothed"]),
            helper.make_node("ReduceSum", ["class.smoothed"], ["class.total"], keepdims=1),
            helper.make_node("Div", ["class.smoothed", "class.total"], ["class.prior"]),
            helper.make_node("Log", ["class.prior"], ["class.log_prior"]),
            helper.make_node("Mul", ["class.log_prior", "balance"], ["log_prior"]),
        ]
    )


def _scan_body(
    module: nn.Module, loss: Loss, sample: InputSchema, label: LabelSchema, parameters: Sequence[Parameter]
) -> GraphProto:
    """One step on one mini-batch. It reads `inputs`, `learning_rate` and `log_prior` from the graph around it."""
    carried = parameter_inputs(parameters, CARRIED)
    body = convert(
        training_step(module, loss),
        inputs=[
            *carried,
            GraphInput("step.inputs", (BATCH, *sample.shape)),
            GraphInput("step.labels", (BATCH,), torch.int64),
            GraphInput("step.row_weights", (BATCH,)),
            GraphInput("learning_rate", ()),
            *([GraphInput("log_prior", (label.classes,))] if loss.balances_classes else []),
        ],
        outputs=[*(UPDATED + parameter.name for parameter in parameters), "step.row_losses"],
    )
    body.name = "step"
    body.node.insert(0, helper.make_node("Gather", ["inputs", "step.rows"], ["step.inputs"], axis=0))
    del body.input[len(carried) :]
    body.input.extend(
        [
            _tensor("step.rows", ["batch"], TensorProto.INT64),
            _tensor("step.labels", ["batch"], TensorProto.INT64),
            _tensor("step.row_weights", ["batch"]),
        ]
    )
    return body


def _tensor(name: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)
