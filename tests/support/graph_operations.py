"""How many floating point operations a graph's convolutions and products take, by the shapes that ONNX infers."""

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto
from onnx.shape_inference import infer_shapes

Shapes = Mapping[str, Sequence[int]]
PRODUCTS, CONVOLUTIONS = ("MatMul", "Gemm"), ("Conv", "ConvTranspose")


def operations(model: ModelProto, rows: int) -> int:
    """Multiplications and additions of a pass with so many rows."""
    nodes, shapes = _counted(model, rows)
    return sum(_operations(node, shapes) for node in nodes)


def operations_of_means(model: ModelProto, rows: int) -> int:
    """Those of them that take means over the rows, as batch normalisation does: no product goes back through these."""
    nodes, shapes = _counted(model, rows)
    return sum(_operations(node, shapes) for node in nodes if list(shapes[node.input[0]]) == [1, rows])


def _counted(model: ModelProto, rows: int) -> tuple[list[NodeProto], Shapes]:
    graph = GraphProto()
    graph.CopyFrom(model.graph)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_value = rows
    inferred = infer_shapes(onnx.helper.make_model(graph, opset_imports=model.opset_import), data_prop=True).graph
    shapes = {value.name: _shape(value) for value in (*inferred.input, *inferred.output, *inferred.value_info)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    return [node for node in inferred.node if node.op_type in PRODUCTS + CONVOLUTIONS], shapes


def _operations(node: NodeProto, shapes: Shapes) -> int:
    first, second, made = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type in CONVOLUTIONS:
        places = first if node.op_type == "ConvTranspose" else made  # a kernel is laid on each of these
        return 2 * math.prod(second) * made[0] * math.prod(places[2:])
    is_turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(made) * first[-2 if is_turned else -1]


def _shape(value: ValueInfoProto) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]
