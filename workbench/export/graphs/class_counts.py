"""Counting a device's classes inside the training graph, for losses that balance them."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from bundle_runtime.log_priors import BALANCE
from fleet_protocol.sample_schema import LabelSchema, qualified
from workbench.export.graphs.graph_constants import add_constant
from workbench.export.recipe.heads import Head


def count_classes(graph: GraphProto, heads: Sequence[Head], row: LabelSchema) -> None:
    """Add each head's `log_prior` f32[C] where its loss balances classes; `row` is what all labels of a sample are.

    It is `BALANCE` times the log of the frequencies of all labels, each class counted once more: Laplace's rule keeps
    a class that this device has never seen finite.
    """
    balanced = [head for head in heads if head.log_prior]
    if not balanced:
        return
    if row.is_index:
        add_constant(graph, "classes", np.int64(row.classes))
        add_constant(graph, "off_on", np.array([0, 1], dtype=np.float32))
        add_constant(graph, "axis.samples", [0])
    add_constant(graph, "once_more", np.float32(1))
    add_constant(graph, "balance", np.float32(BALANCE))
    for head in balanced:
        counts = qualified("class.counts", head.name)
        graph.node.extend(_index_counts(counts) if row.is_index else _counts_in_row(graph, head, counts))
        graph.node.extend(_log_prior(head, counts))


def _index_counts(counts: str) -> list[NodeProto]:
    """Of labels i64[N]."""
    return [
        helper.make_node("OneHot", ["labels", "classes", "off_on"], ["labels.one_hot"]),
        helper.make_node("ReduceSum", ["labels.one_hot", "axis.samples"], [counts], keepdims=0),
    ]


def _counts_in_row(graph: GraphProto, head: Head, counts: str) -> list[NodeProto]:
    """Of the head's part of labels f32[N, values]. Added up one by one: one-hot labels of every pixel are too many."""
    name = {part: qualified(f"class.{part}", head.name) for part in ("places", "flat", "zeros", "ones", "found")}
    add_constant(graph, name["places"], np.arange(head.place.start, head.place.stop))
    add_constant(graph, name["flat"], [-1])
    add_constant(graph, name["zeros"], np.zeros(head.label.classes, np.int64))
    add_constant(graph, name["ones"], np.int64(1))
    found = name["found"]
    return [
        helper.make_node("Gather", ["labels", name["places"]], [f"{found}.values"], axis=1),
        helper.make_node("Cast", [f"{found}.values"], [f"{found}.classes"], to=TensorProto.INT64),
        helper.make_node("Reshape", [f"{found}.classes", name["flat"]], [found]),
        helper.make_node("Shape", [found], [f"{found}.shape"]),
        helper.make_node("Expand", [name["ones"], f"{found}.shape"], [f"{found}.ones"]),
        helper.make_node(
            "ScatterElements", [name["zeros"], found, f"{found}.ones"], [f"{counts}.whole"], axis=0, reduction="add"
        ),
        helper.make_node("Cast", [f"{counts}.whole"], [counts], to=TensorProto.FLOAT),
    ]


def _log_prior(head: Head, counts: str) -> list[NodeProto]:
    smoothed, total, prior, log_prior = (
        qualified(f"class.{part}", head.name) for part in ("smoothed", "total", "prior", "log_prior")
    )
    return [
        helper.make_node("Add", [counts, "once_more"], [smoothed]),
        helper.make_node("ReduceSum", [smoothed], [total], keepdims=1),
        helper.make_node("Div", [smoothed, total], [prior]),
        helper.make_node("Log", [prior], [log_prior]),
        helper.make_node("Mul", [log_prior, "balance"], [head.log_prior]),
    ]
