"""A frozen graph with its weights as int8: a quarter of the bytes on the air and on the disk, arithmetic in float32.

Each weight tensor w becomes int8 q and float32 scales s, one per output of its operator, with w close to q * s
(symmetric linear quantisation: Jacob et al. 2018, equation 1, with zero point 0). `DequantizeLinear` makes it float32
again when the graph is loaded.
"""

from collections.abc import Callable

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


def quantise_weights(graph: GraphProto) -> None:
    """Replace in place every weight tensor that isn't small, and that operators of `OUTPUT_AXIS` alone read."""
    axes = _axes(graph)
    kept, added = [], []
    for initializer in graph.initializer:
        name = initializer.name
        if name not in axes or not _worth_it(initializer):
            kept.append(initializer)
            continue
        axis = axes[name] % len(initializer.dims)
        scales, quantised = quantise(numpy_helper.to_array(initializer), axis)
        kept += [numpy_helper.from_array(quantised, f"{name}.int8"), numpy_helper.from_array(scales, f"{name}.scales")]
        added.append(
            helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scales"], [name], f"{name}.float", axis=axis)
        )
    nodes = [*added, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


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
