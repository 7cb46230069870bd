"""A frozen graph with its weights as int8: a quarter of the bytes on the air and on the disk, arithmetic in float32.

Each weight tensor w becomes int8 q and float32 scales s, one per output of its operator, with w close to q * s
(symmetric linear quantisation: Jacob et al. 2018, equation 1, with zero point 0). `DequantizeLinear` makes it float32
again when the graph is loaded. With two terms, a second such pair holds what the first one leaves over.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

SMALLEST = 256
"""Values in a tensor below which scales and an operator more would eat up what int8 saves."""
LARGEST = 127


def _gemm_axis(node: NodeProto) -> int:
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if turned else 1


OUTPUT_AXIS: dict[tuple[str, int], Callable[[NodeProto], int]] = {
    ("Conv", 1): lambda _: 0,
    ("ConvTranspose", 1): lambda _: 1,
    ("Gemm", 1): _gemm_axis,
    ("MatMul", 1): lambda _: -1,
    ("Gather", 0): lambda _: 0,
}
"""Operator and place of its weights to the axis along which outputs differ. Slices of their own scale keep channels
apart that batch normalisation will bring to one size only afterwards."""


def quantise_weights(graph: GraphProto, terms: Mapping[str, int] | None = None) -> None:
    """Replace in place the weight tensors that `terms` gives a number of int8 tensors, 1 or 2, or each by one."""
    axes = quantisable(graph)
    terms = dict.fromkeys(axes, 1) if terms is None else terms
    kept, added = [], []
    for initializer in graph.initializer:
        if initializer.name not in terms:
            kept.append(initializer)
            continue
        tensors, nodes = _as_terms(initializer, axes[initializer.name], terms[initializer.name])
        kept += tensors
        added += nodes
    nodes = [*added, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def quantisable(graph: GraphProto) -> dict[str, int]:
    """Name to output axis of every weight tensor that isn't small, and that operators of `OUTPUT_AXIS` alone read."""
    axes = _axes(graph)
    weights = [each for each in graph.initializer if each.name in axes and _worth_it(each)]
    return {each.name: axes[each.name] % len(each.dims) for each in weights}


def _as_terms(initializer: TensorProto, axis: int, terms: int) -> tuple[list[TensorProto], list[NodeProto]]:
    """The int8 tensors and scales of one weight tensor, and the operators that make it of them."""
    name, left = initializer.name, numpy_helper.to_array(initializer)
    tensors, nodes, floats = [], [], []
    for term in range(terms):
        suffix = f".{term}" if term else ""
        scales, quantised = quantise(left, axis)
        others = tuple(other for other in range(left.ndim) if other != axis)
        left = left - quantised * np.expand_dims(scales, others)
        pair = [f"{name}.int8{suffix}", f"{name}.scales{suffix}"]
        tensors += [numpy_helper.from_array(quantised, pair[0]), numpy_helper.from_array(scales, pair[1])]
        floats.append(name if terms == 1 else f"{name}.term{suffix}")
        nodes.append(helper.make_node("DequantizeLinear", pair, floats[-1:], f"{name}.float{suffix}", axis=axis))
    if terms > 1:
        nodes.append(helper.make_node("Sum", floats, [name], f"{name}.sum"))
    return tensors, nodes


def quantise(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Scales f32[weights.shape[axis]], and int8 in the shape of `weights`."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    peaks = np.abs(weights).max(axis=others)
    scales = np.where(peaks > 0, peaks / LARGEST, 1).astype(np.float32)
    return scales, np.rint(weights / np.expand_dims(scales, others)).astype(np.int8)


def _axes(graph: GraphProto) -> dict[str, int]:
    """Name of an operand to its output axis, where every operator that reads it agrees."""
    readers: dict[str, set[int | None]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            axis = OUTPUT_AXIS.get((node.op_type, place))
            readers.setdefault(name, set()).add(axis(node) if axis else None)
    return {name: axis for name, found in readers.items() for axis in found if len(found) == 1 and axis is not None}


def _worth_it(initializer: TensorProto) -> bool:
    return initializer.data_type == TensorProto.FLOAT and int(np.prod(initializer.dims)) >= SMALLEST
