"""Graphs that no bundle has."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

INT64 = TensorProto.INT64


def model_of(nodes: Sequence[NodeProto], tensors: Sequence[TensorProto] = ()) -> ModelProto:
    """A model without inputs, whose output is `o`."""
    outputs = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    return helper.make_model(
        helper.make_graph(nodes, "graph", [], outputs, tensors),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )


def external(location: str, size: int = 8, offset: int = 0) -> TensorProto:
    """`size` bytes of another file, as a tensor."""
    tensor = TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[size], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def reader_of(location: str, size: int = 8, offset: int = 0) -> bytes:
    """A model whose output is `size` bytes of another file, as numbers."""
    cast = helper.make_node("Cast", ["secret"], ["o"], to=TensorProto.FLOAT)
    return model_of([cast], [external(location, size, offset)]).SerializeToString()


def loop(count: int | None, body: GraphProto | None = None) -> list[NodeProto]:
    """A `Loop` of `count` iterations, for ever where that is None, with a constant for its number before it."""
    keep = helper.make_node("Identity", ["going"], ["still"])
    inner = body or helper.make_graph(
        [keep],
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, [])],
    )
    constant = helper.make_node("Constant", [], ["count"], value=numpy_helper.from_array(np.array(count or 0)))
    return [constant, helper.make_node("Loop", ["" if count is None else "count", ""], ["o"], body=inner)]


def scan(*scanned: str, body: Sequence[NodeProto] = ()) -> list[NodeProto]:
    """A `Scan` over the values of these names."""
    inner = helper.make_graph(list(body), "body", [], [])
    return [helper.make_node("Scan", list(scanned), ["o"], body=inner, num_scan_inputs=len(scanned))]


def nested(depth: int) -> list[NodeProto]:
    """`If`s, one in the other."""
    output = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Constant", [], ["o"], value_float=1.0)]
    for _ in range(depth):
        graph = helper.make_graph(nodes, "branch", [], output)
        nodes = [helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)]
    return nodes
