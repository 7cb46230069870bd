"""Max pooling with places, and its inverse, as ONNX's own two operators.

ONNX counts places through the whole tensor, torch within each plane. `torch.onnx` finds the difference with a second,
slow pooling; it is the plane's number times its size.
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx_ir
import torch
from onnx_ir import Value
from torch._ops import OpOverload
from torch.onnx._internal.exporter._torchlib.ops.hop import call_op

from workbench.export.conversion.pooling_gradients import window_count

PLANE_AXES = 2


def max_pool2d_with_indices(  # noqa: PLR0917 - the operator's own signature
    inputs: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Value, Value]:
    """`aten.max_pool2d_with_indices` of f32[B, C, H, W] or f32[C, H, W]."""
    batched, sizes = _batched(inputs), _sizes(inputs)
    kernel, strides, pads, dilations = map(_pair, (kernel_size, stride or kernel_size, padding, dilation))
    values, places = call_op(
        "MaxPool",
        batched,
        _num_outputs=2,
        kernel_shape=kernel,
        strides=strides,
        pads=pads * 2,
        dilations=dilations,
        ceil_mode=int(ceil_mode),
    )
    if ceil_mode:
        # With ONNX's own rounding up, a window may lie in the padding as a whole: torch has none there.
        extents = [spread * (size - 1) + 1 for size, spread in zip(kernel, dilations, strict=True)]
        windows = [window_count(*axis, ceil_mode=True) for axis in zip(sizes, extents, strides, pads, strict=True)]
        values, places = _first(values, windows), _first(places, windows)
    (places,) = call_op("Sub", places, _starts_of_planes(batched, sizes))
    return _like(inputs, values), _like(inputs, places)


def max_unpool2d(inputs: Value, places: Value, output_size: Sequence[int]) -> Value:
    """`aten.max_unpool2d` of f32[B, C, H, W] or f32[C, H, W]: each value in its place in the plane, zeros around it."""
    batched = _batched(inputs)
    (counted,) = call_op("Add", _batched(places), _starts_of_planes(batched, output_size))
    (outer,) = call_op("Shape", batched, end=PLANE_AXES)
    (shape,) = call_op("Concat", outer, _constant(list(output_size)), axis=0)
    # The windows are of no account where the shape is given.
    (values,) = call_op("MaxUnpool", batched, counted, shape, kernel_shape=[1, 1])
    return _like(inputs, values)


def _first(batched: Value, counts: Sequence[int]) -> Value:
    """So many of the first rows and columns of each plane."""
    (kept,) = call_op("Slice", batched, _constant([0, 0]), _constant(list(counts)), _constant([-2, -1]))
    return kept


def _starts_of_planes(batched: Value, sizes: Sequence[int]) -> Value:
    """i64[B, C, 1, 1]: the number of each plane of f32[B, C, ...], times the product of its `sizes`."""
    (outer,) = call_op("Shape", batched, end=PLANE_AXES)
    (planes,) = call_op("ReduceProd", outer, keepdims=0)
    size = prod(sizes)
    (end,) = call_op("Mul", planes, _constant(size))
    (starts,) = call_op("Range", _constant(0), end, _constant(size))
    (shape,) = call_op("Concat", outer, _constant([1] * PLANE_AXES), axis=0)
    (spread,) = call_op("Reshape", starts, shape)
    return spread


def _batched(value: Value) -> Value:
    return value if _rank(value) > PLANE_AXES + 1 else call_op("Unsqueeze", value, _constant([0]))[0]


def _like(inputs: Value, value: Value) -> Value:
    return value if _rank(inputs) > PLANE_AXES + 1 else call_op("Squeeze", value, _constant([0]))[0]


def _rank(value: Value) -> int:
    return len(value.shape or ())


def _sizes(value: Value) -> list[int]:
    return [size for size in list(value.shape or ())[-PLANE_AXES:] if isinstance(size, int)]


def _pair(sizes: Sequence[int]) -> list[int]:
    return list(sizes) if len(sizes) == PLANE_AXES else [sizes[0]] * PLANE_AXES


def _constant(value: int | list[int]) -> Value:
    (made,) = call_op("Constant", value=onnx_ir.tensor(np.array(value, np.int64)))
    return made


TRANSLATIONS: dict[OpOverload, Callable[..., object]] = {
    torch.ops.aten.max_pool2d_with_indices.default: max_pool2d_with_indices,
    torch.ops.aten.max_unpool2d.default: max_unpool2d,
}
"""Operator to what writes its nodes."""
