"""The flat weight vector inside a graph: cut into parameters, and joined again."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from fleet_protocol.bundle import Parameter
from workbench.export.tracing import GraphInput


def parameter_inputs(parameters: Sequence[Parameter], prefix: str) -> list[GraphInput]:
    """The parameters as the inputs `<prefix><name>` of a graph."""
    return [GraphInput(prefix + parameter.name, tuple(parameter.shape)) for parameter in parameters]


def split_weights(graph: GraphProto, parameters: Sequence[Parameter], flat: str, prefix: str) -> None:
    """Add nodes that cut `flat` f32[P] into one value `<prefix><name>` per parameter, in its shape."""
    sizes = np.array([parameter.size for parameter in parameters], dtype=np.int64)
    graph.initializer.append(numpy_helper.from_array(sizes, f"{flat}.sizes"))
    pieces = [_piece(parameter, prefix) for parameter in parameters]
    graph.node.append(helper.make_node("Split", [flat, f"{flat}.sizes"], pieces, axis=0))
    for parameter, piece in zip(parameters, pieces, strict=True):
        if len(parameter.shape) != 1:
            graph.node.append(_reshape(graph, piece, prefix + parameter.name, parameter.shape))


def join_weights(graph: GraphProto, parameters: Sequence[Parameter], prefix: str, flat: str) -> None:
    """Add nodes that concatenate the values `<prefix><name>` to `flat` f32[P], each C-order raveled."""
    pieces = [_piece(parameter, prefix) for parameter in parameters]
    for parameter, piece in zip(parameters, pieces, strict=True):
        if len(parameter.shape) != 1:
            graph.node.append(_reshape(graph, prefix + parameter.name, piece, [-1]))
    graph.node.append(helper.make_node("Concat", pieces, [flat], axis=0))


def _piece(parameter: Parameter, prefix: str) -> str:
    """The parameter's value as a vector: the parameter itself if it is one."""
    return prefix + parameter.name + ("" if len(parameter.shape) == 1 else ".flat")


def _reshape(graph: GraphProto, source: str, target: str, shape: Sequence[int]) -> NodeProto:
    graph.initializer.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{target}.shape"))
    return helper.make_node("Reshape", [source, f"{target}.shape"], [target])
